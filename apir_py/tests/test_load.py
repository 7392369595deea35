"""The service under load, a tenth of `make soak-events`: 50 clients, 1,000 events a second, one that is stuck."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOAD = Path(__file__).with_name("load.py")
MOST_GROWTH = 20 << 10
"""KiB; the backlog of the client that is stuck is part of it."""


@pytest.fixture(scope="module")
def runs():
    """Both ways of the load at once, since most of their time is waiting."""
    command = [sys.executable, LOAD, "--clients", "50", "--rate", "1000", "--seconds", "6"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = {mode: subprocess.Popen([*command, *mode.split()], **pipes) for mode in ("", "--state")}
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("mode", ["", "--state"], ids=["events", "state"])
def test_no_event_is_lost_under_load(runs, mode):
    out, errors = runs[mode].communicate(timeout=90)
    assert runs[mode].returncode == 0, out + errors
    figures = json.loads(out)
    assert figures["events"] > 4000 and figures["missing"] == 0 and figures["lists_of_channels"] > 2, figures
    assert figures["memory_kib"]["end"] - figures["memory_kib"]["before"] < MOST_GROWTH, figures
