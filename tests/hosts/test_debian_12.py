"""The smaller set of tests on Debian 12: a package built there, a second run without changes, the host, and calls."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))

import platforms  # noqa: E402  the path has to be set first


def test_exchange_works_on_debian_12():
    platform = platforms.Platform.of("bookworm:22")
    try:
        platform.run(["test_host.py", "test_calls.py"])
    finally:
        platform.lab("down")
    assert not platform.faults, platform.row()
    assert "passed" in platform.tests
