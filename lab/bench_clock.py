"""The clock of the measures."""

from __future__ import annotations

import subprocess
import sys
import time

from shell import say


def timed(what: str, command: list[str], **options: object) -> float:
    """Seconds that a command takes; its output goes to the screen, not among the figures. Raises CalledProcessError."""
    say(what)
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=sys.stderr, **options)
    return time.monotonic() - begun
