"""`make screenshots`: pictures of the page with the example's content, for README and docs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browser import launch, log_in
from page_server import PageServer

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
PICTURES = [
    ("page-calls-1280", 1280, 620, "light", "calls"),
    ("page-queues-1280", 1280, 800, "dark", "queues"),
    ("page-phones-1280", 1280, 700, "light", "phones"),
    ("page-records-1280", 1280, 620, "light", "records"),
    ("page-calls-390", 390, 844, "light", "calls"),
    ("page-queues-390", 390, 844, "dark", "queues"),
]


def take(browser: Any, url: str, directory: Path) -> None:
    """Write the PNG files."""
    directory.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(locale="en-GB", timezone_id="Europe/Madrid")
    log_in(context.new_page(), url)
    for name, width, height, scheme, view in PICTURES:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{url}#/{view}")
        page.wait_for_selector("main tbody tr")
        page.screenshot(path=directory / f"{name}.png")
        page.close()
    context.close()


def main() -> None:
    """Write them into docs/images."""
    from playwright.sync_api import sync_playwright

    server = PageServer()
    url = server.start()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        take(browser, url, IMAGES)
        browser.close()
    server.stop()


if __name__ == "__main__":
    main()
