"""Debian's Chromium, driven by Playwright, for the tests of page and phone and for screenshots."""

from __future__ import annotations

from typing import Any

CHROMIUM = "/usr/bin/chromium"
# It runs as root here, and asks for nothing on the network.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def launch(playwright: Any, *flags: str) -> Any:
    """Start the browser, with more flags if there are any."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])


def fill_in(page: Any, user: str = "ana", password: str = "right") -> None:
    """Fill in the login form and send it."""
    page.fill("#user", user)
    page.fill("#password", password)
    page.press("#password", "Enter")


def log_in(page: Any, url: str, user: str = "ana", password: str = "right") -> None:
    """Open the page and log in."""
    page.goto(url)
    fill_in(page, user, password)
    page.wait_for_selector("nav.views")
