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


@pytest.mark.parametrize("mode", [[], ["--state"]], ids=["events", "state"])
def test_no_event_is_lost_under_load(mode):
    command = [sys.executable, LOAD, "--clients", "50", "--rate", "1000", "--seconds", "6", *mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["events"] > 4000 and figures["missing"] == 0 and figures["lists_of_channels"] > 2, figures
    assert figures["memory_kib"]["end"] - figures["memory_kib"]["before"] < MOST_GROWTH, figures
