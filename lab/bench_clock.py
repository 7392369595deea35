"""The clock of the measurements."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from shell import log


def timed(what: str, command: list[str], **options: Any) -> float:
    """Seconds that a command takes; its output goes to stderr, not to the figures. Raises CalledProcessError."""
    log(what)
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=sys.stderr, **options)
    return time.monotonic() - begun
