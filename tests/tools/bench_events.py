#!/usr/bin/env python3
"""Measures the events service on the host of `make lab`: `make bench-events`.

Places calls by turns with the service and a page open in Chromium, and with the service stopped: the service must not
slow them. The machine's own speed changes by more than that, so neighbouring turns are compared, and the median of
their ratios counts. With the page open it also measures the time from the moment a phone sends its INVITE to the moment
the page shows the call, which is longer than the time from the event to the page. Prints a JSON object with the figures
and their limits; exits with code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / path) for path in ("collections", "lab", "tests/site")]

import bench  # noqa: E402
from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection  # noqa: E402
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone, wait  # noqa: E402
from browser_phone import chromium, logged_in  # noqa: E402
from lab_host import LabHost  # noqa: E402
from playwright.sync_api import Browser, Error, sync_playwright  # noqa: E402
from sipp import within  # noqa: E402

UNIT = "labredes-events.service"
# Short ones, for neighbours to see the same machine; many, for its changes to even out.
CALLS_OF_A_TURN = 5
START = 2
"""Seconds after which the start of service and page, or their end, takes no processor any more."""
CALLER, CALLEE, NAME = "6001", "6002", "Paquito Txokolatero"
# Notes in the page when a row with the caller's name appears, in ms since the epoch.
WATCH = """name => {
  window.shown = [];
  new MutationObserver(() => {
    const there = [...document.querySelectorAll("main tbody tr")].some(row => row.textContent.includes(name));
    if (there && !window.there) window.shown.push(Date.now());
    window.there = there;
  }).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""


def telephones(lab: dict) -> list[Phone]:
    """The caller and the callee, each with a connection of its own."""
    address = (lab["host"], lab["sip"]["udp"])
    return [
        Phone(number, (number, lab["phones"][number]["password"]), Connection("udp", address, 5))
        for number in (CALLER, CALLEE)
    ]


def place(phones: list[Phone], count: int) -> tuple[list[float], list[float]]:
    """Place calls one after the other; returns when each began, in s since the epoch, and its setup time in ms."""
    caller, callee = phones
    asked = callee.register()
    assert wait(phones, lambda: asked.final and asked.final.status == 200, 20), "no registration"
    begun, setups = [], []
    for _call in range(count):
        begun.append(time.time())
        asked = caller.dial(CALLEE)
        assert wait(phones, lambda: callee.incoming, 10), "no call"
        callee.answer()
        assert wait(phones, lambda asked=asked: asked.final, 10), "no answer"
        setups.append(asked.seconds * 1000)
        assert wait(phones, lambda: callee.call.confirmed, 10)
        time.sleep(0.15)  # so that the page shows it
        caller.hang_up()
        assert wait(phones, lambda: callee.call.ended, 10)
        time.sleep(0.15)
    return begun, setups


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=ROOT / ".lab", help="directory of the lab")
    parser.add_argument("--calls", type=int, default=200, help="with the service, and as many without")
    options = parser.parse_args()
    host = LabHost(options.dir.resolve())
    info = [sys.executable, ROOT / "lab/lab.py", "info", "--dir", host.directory]
    lab = json.loads(subprocess.run(info, capture_output=True, text=True, check=True).stdout)
    phones = telephones(lab)
    setups: dict[bool, list[list[float]]] = {True: [], False: []}
    delays: list[float] = []
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        # It stands for another computer: it must not take the processor from the exchange.
        os.setpriority(os.PRIO_PROCESS, 0, 19)
        browser = chromium(playwright, Path(directory))
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        for turn in range(options.calls // CALLS_OF_A_TURN):
            # Each state is as often the first of its pair.
            for state in (True, False) if turn % 2 else (False, True):
                if not state:
                    host.run(f"systemctl stop {UNIT}")
                    time.sleep(START)
                    setups[False].append(place(phones, CALLS_OF_A_TURN)[1])
                    continue
                host.run(f"systemctl start {UNIT}")
                assert within(20, lambda: connected(browser, lab["events"]["url"])), "the service is not connected"
                context = logged_in(browser, lab["events"])
                page = context.new_page()
                page.goto("/")
                page.wait_for_selector("nav.views")
                page.evaluate(WATCH, NAME)
                page.wait_for_timeout(START * 1000)
                begun, found = place(phones, CALLS_OF_A_TURN)
                page.wait_for_timeout(500)
                shown = page.evaluate("window.shown")
                assert len(shown) == len(begun), f"the page has shown {len(shown)} of {len(begun)} calls"
                delays += [at - began * 1000 for at, began in zip(shown, begun, strict=True)]
                setups[True].append(found)
                context.close()
        browser.close()
    host.run(f"systemctl restart {UNIT}; sleep 5")
    memory = int(host.run(f"ps -o rss= -p $(systemctl show --property=MainPID --value {UNIT})")) / 1024
    for phone in phones:
        phone.connection.close()
    medians = {state: [statistics.median(turn) for turn in turns] for state, turns in setups.items()}
    ratios = [with_service / without for with_service, without in zip(medians[True], medians[False], strict=True)]
    delays.sort()
    figures = {
        "calls": options.calls,
        "setup_ms": round(statistics.median(itertools.chain(*setups[True])), 2),
        "setup_ms_without_service": round(statistics.median(itertools.chain(*setups[False])), 2),
        "setup_ratio": round(statistics.median(ratios), 3),
        "setup_ratio_standard_error": round(1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5, 3),
        "setup_ratio_at_most": 1.05,
        "page_ms_median": round(statistics.median(delays)),
        "page_ms_median_at_most": 100,
        "page_ms_p99": round(delays[int(len(delays) * 0.99)]),
        "page_ms_p99_at_most": 300,
        "idle_mib": round(memory, 1),
        "idle_mib_at_most": 60,
    }
    print(json.dumps(figures, indent=2))
    return int(bool(bench.missed(figures)))


def connected(browser: Browser, url: str) -> bool:
    """Whether the service answers, and is connected to the exchange."""
    context = browser.new_context(ignore_https_errors=True)
    try:
        return context.request.get(f"{url}/healthz").ok
    except Error:
        return False
    finally:
        context.close()


if __name__ == "__main__":
    sys.exit(main())
