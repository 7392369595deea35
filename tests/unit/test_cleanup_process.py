"""The process that cleans up behind another one, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import rendering
from ansible_collections.labredes.pbx.plugins.module_utils.cleanup_process import CleanupProcess

PARENT = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
sys.path.insert(0, sys.argv[1])
from ansible_collections.labredes.pbx.plugins.module_utils.cleanup_process import CleanupProcess
kept = CleanupProcess(lambda: [open(sys.argv[2], "w").close()])
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_killed_process_is_cleaned_up_after(number, tmp_path):
    """The signal goes to the whole group, as from a terminal."""
    mark = tmp_path / "removed"
    command = [sys.executable, "-c", PARENT, rendering.ROOT / "collections", mark]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as parent:
        assert parent.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        assert not mark.exists(), "it does not wait"
        os.killpg(parent.pid, number)
        assert parent.stdout.read() == b"", "the output stays open"
    deadline = time.monotonic() + 5
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert mark.exists()


def test_failures_are_returned():
    assert CleanupProcess(lambda: ["the ñ stays"]).finish() == ["the ñ stays"]
    assert CleanupProcess(list).finish() == []


def fail():
    raise KeyError("a defect")


@pytest.mark.parametrize("remove", [fail, lambda: time.sleep(5)])
def test_cleanup_that_fails_or_hangs_is_named(remove):
    began = time.monotonic()
    assert CleanupProcess(remove).finish(0.3) == ["the process that removes the verification's own objects has failed"]
    assert time.monotonic() - began < 2
