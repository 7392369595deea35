"""How much of the host a systemd unit is exposed to, by systemd-analyze."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def check_exposure(text: str, name: str, directory: Path) -> None:
    """Check that a unit is exposed by at most 2.0, below a directory with the program that it starts."""
    unit = directory / name
    unit.write_text(text)
    program = directory / re.search(r"^ExecStart=/(\S+)", text, re.MULTILINE)[1]
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
