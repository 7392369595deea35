"""Run the project's playbooks on a lab host, as an administrator does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELOADS = re.compile(r"^asterisk\.service: reloaded (.*)$", re.MULTILINE)


def prepared(
    directory: Path, *arguments: str, playbook: str = "site.yml", environment: dict[str, str] | None = None
) -> dict:
    """The arguments with which subprocess.run or Popen runs a playbook on the host of a lab directory.

    playbook: or several, separated by spaces.
    """
    program = Path(sys.executable).with_name("ansible-playbook")
    # Molecule sets some of Ansible's own variables, such as that for colors; the output is read here.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {
        "args": [program, *playbook.split(), "-i", directory / "inventory", *arguments],
        "cwd": ROOT,
        "env": {**inherited, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **(environment or {})},
        "text": True,
    }


def play(
    directory: Path,
    *arguments: str,
    playbook: str = "site.yml",
    environment: dict[str, str] | None = None,
    killed_at: str = "",
    seconds: float = 400,
) -> subprocess.CompletedProcess[str]:
    """Run a playbook as prepared() has it; the caller checks the exit code.

    killed_at: a step of tests/tools/callback/killed_at.py, at which the run and all its processes are killed.
    """
    if killed_at:
        environment = {
            **(environment or {}),
            "KILLED_AT": killed_at,
            "ANSIBLE_CALLBACKS_ENABLED": "killed_at",
            "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/tools/callback"),
        }
    return subprocess.run(
        **prepared(directory, *arguments, playbook=playbook, environment=environment),
        capture_output=True,
        timeout=seconds,
        check=False,
        start_new_session=bool(killed_at),
    )


@dataclass(frozen=True)
class Run:
    """The result of a run of site.yml: the number of changes, and the modules that were reloaded."""

    changed: int
    reloaded: list[str]


class Exchange:
    """The exchange of a lab host, which runs with the data of its inventory or with other data."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.data: dict[str, object] = {}

    def apply(self, **data: object) -> Run:
        """Run the part of site.yml for the exchange, with other data if there is any."""
        self.data = data
        done = play(self.directory, "--tags=pbx", "--diff", "-e", json.dumps(data), seconds=120)
        assert done.returncode == 0, done.stdout[-3000:]
        reloaded = sorted(" ".join(RELOADS.findall(done.stdout)).split())
        return Run(max(map(int, re.findall(r"changed=(\d+)", done.stdout))), reloaded)

    def ensure(self, **data: object) -> None:
        """Run it only if the exchange has other data."""
        if self.data != data:
            self.apply(**data)
