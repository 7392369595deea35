"""Run the project's playbooks on a lab host, as an administrator does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def play(
    directory: Path,
    *arguments: str,
    playbook: str = "site.yml",
    environment: dict[str, str] | None = None,
    seconds: float = 400,
    **options: object,
) -> subprocess.CompletedProcess[str]:
    """Run a playbook on the host of a lab directory; the caller checks the exit code.

    options: as of subprocess.run.
    """
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [program, playbook, "-i", directory / "inventory", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **(environment or {})},
        timeout=seconds,
        check=False,
        **options,
    )
