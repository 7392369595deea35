"""A second machine on the lab's network, to test what the lab host exposes to others."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "lab"))

import host  # noqa: E402

import inventory  # noqa: E402

HERE = Path(__file__).resolve().parent


def within_network(process: int) -> list[str]:
    """The beginning of a command of this machine that uses the network of a process, such as a container's."""
    return ["nsenter", f"--target={process}", "--net", "--"]


class OutsideHost:
    """A container of the lab host's own image, removed at the end."""

    def __init__(self, directory: Path, role: str = "outside"):
        self.lab_host = inventory.read(directory)[0]
        self.name = f"{self.lab_host}-{role}"

    def __enter__(self) -> OutsideHost:
        host.remove(self.name)
        image = host.inspect(self.lab_host, "{{.Image}}")
        start = [*host.engine(image), "--detach", f"--name={self.name}", image, "sleep", "infinity"]
        subprocess.run(start, check=True, capture_output=True, timeout=60)
        # Its IPv6 address is usable after duplicate address detection, about a second.
        end = time.monotonic() + 10
        while self.run("ip", "-6", "address", "show", "tentative") and time.monotonic() < end:
            time.sleep(0.1)
        return self

    def __exit__(self, *_problem) -> None:
        host.remove(self.name)

    @property
    def address(self) -> str:
        """Its IPv4 address; an error if the container has ended."""
        found = host.address(self.name)
        assert found, host.inspect(self.name, "{{json .State}}") or f"container {self.name} is gone"
        return found

    @property
    def process(self) -> int:
        """Its first process, by which this machine's programs enter its network."""
        return int(host.inspect(self.name, "{{.State.Pid}}"))

    def run(self, *command: str, given: str = "", seconds: float = 60) -> str:
        """Run a command there and return its output, whatever its exit code; `given` is its input."""
        return subprocess.run(
            ["podman", "exec", "--interactive", self.name, *command],
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        ).stdout

    def python(self, program: str, *arguments: object, seconds: float = 60) -> str:
        """Run a program of this directory there."""
        return self.run("python3", "-", *map(str, arguments), given=(HERE / program).read_text(), seconds=seconds)

    def scan(self, *addresses: str) -> dict[str, dict[str, list[int]]]:
        """Open and refused TCP ports of each address: {address: {open: [...], refused: [...]}}."""
        return json.loads(self.python("port_scan.py", *addresses, seconds=120))
