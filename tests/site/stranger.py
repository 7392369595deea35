"""A second machine on the lab's network, for tests of what the lab host shows to strangers."""

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


class Stranger:
    """A container of the lab host's own image that runs what it is told to and is removed in the end."""

    def __init__(self, room: Path):
        self.beside = inventory.read(room)[0]
        self.name = f"{self.beside}-stranger"

    def __enter__(self) -> Stranger:
        host.remove(self.name)
        image = host.inspect(self.beside, "{{.Image}}")
        start = [*host.engine(image), "--detach", f"--name={self.name}", image, "sleep", "infinity"]
        subprocess.run(start, check=True, capture_output=True, timeout=60)
        # Its address of IPv6 may be used once nobody has claimed it for a second.
        end = time.monotonic() + 10
        while self.run("ip", "-6", "address", "show", "tentative") and time.monotonic() < end:
            time.sleep(0.1)
        return self

    def __exit__(self, *_problem) -> None:
        host.remove(self.name)

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return host.address(self.name)

    def run(self, *command: str, given: str = "", seconds: float = 60) -> str:
        """Run a command there and give its output, whatever its exit code; `given` is its input."""
        return subprocess.run(
            ["podman", "exec", "--interactive", self.name, *command],
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        ).stdout

    def python(self, program: str, *arguments: object, seconds: float = 60) -> str:
        """Run one of this directory's programs there."""
        return self.run("python3", "-", *map(str, arguments), given=(HERE / program).read_text(), seconds=seconds)

    def scan(self, *addresses: str) -> dict[str, dict[str, list[int]]]:
        """Every TCP port of each address that is open, or refused: {address: {open: [...], refused: [...]}}."""
        return json.loads(self.python("scanner.py", *addresses, seconds=120))
