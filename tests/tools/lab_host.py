"""The host of a lab as the tools in this directory use it: where it is, and commands on it as root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "lab"))

import host  # noqa: E402
from shell import LabError  # noqa: E402

import inventory  # noqa: E402

__all__ = ["LabError", "LabHost"]


class LabHost:
    """The lab host: its name, its address, the SSH port that answers."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.name, self.address, _ = inventory.read(directory)

    @property
    def port(self) -> int:
        """The SSH port."""
        return host.port(self.address, self.directory)

    def run(self, line: str, seconds: float = 60) -> str:
        """The output of a shell line; raises CalledProcessError."""
        command = [*host.ssh(self.address, self.port, self.directory), "sudo", "-n", "bash", "-s"]
        return subprocess.run(command, input=line, capture_output=True, text=True, timeout=seconds, check=True).stdout
