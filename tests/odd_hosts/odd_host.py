"""A lab host for the tests of odd hosts: commands on it, without SSH, and playbooks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import playbook

ROOT = Path(__file__).resolve().parents[2]
CHANGED = re.compile(r"TASK \[.*\n(?:.*\n)?changed:.*")


def podman(*words: str) -> None:
    """Run podman."""
    subprocess.run(["podman", *words], capture_output=True, timeout=60, check=True)


class OddHost:
    """The host of a lab directory."""

    def __init__(self, directory: Path, name: str):
        self.directory, self.name = directory, name

    def inside(self, line: str, seconds: float = 60, check: bool = True) -> str:
        """The output of a shell line as root."""
        command = ["podman", "exec", self.name, "sh", "-ec", line]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def psql(self, query: str, database: str = "asterisk", port: int = 5432) -> str:
        """The answer to a query as the superuser."""
        return self.inside(f'cd /; runuser -u postgres -- psql -At -p {port} {database} -c "{query}"')

    def play(self, *arguments: str, directory: Path | None = None, seconds: float = 900) -> str:
        """The output of site.yml, which must succeed; directory: that of another inventory."""
        done = playbook.play(directory or self.directory, *arguments, seconds=seconds)
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def unchanged(self, *arguments: str, directory: Path | None = None) -> str:
        """The output of site.yml, which must change nothing."""
        output = self.play(*arguments, directory=directory)
        assert set(re.findall(r"changed=(\d+)", output)) == {"0"}, CHANGED.findall(output)
        return output

    def refusal(self, *arguments: str, directory: Path | None = None, last: str = "labredes.pbx.system : ") -> str:
        """The output of the first playbook that changes a host, which must end before that.

        last: the beginning of the first task that must not run.
        """
        done = playbook.play(directory or self.directory, *arguments, playbook="playbooks/upgrade.yml")
        assert done.returncode and f"TASK [{last}" not in done.stdout, done.stdout[-3000:]
        return " ".join(done.stdout.split())

    def inventory(self) -> dict:
        """The content of the lab's inventory."""
        return json.loads((self.directory / "inventory/hosts.yml").read_text().removeprefix("---"))


@contextlib.contextmanager
def made(name: str) -> Iterator[OddHost]:
    """A new host, removed at the end."""
    directory = ROOT / ".lab" / name
    host = OddHost(directory, f"pbx-{name}-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8])
    lab = [sys.executable, ROOT / "lab/lab.py"]
    subprocess.run([*lab, "down", "--dir", directory, "--name", host.name], check=False)
    subprocess.run([*lab, "create", "--dir", directory, "--name", host.name], check=True, timeout=600)
    yield host
    subprocess.run([*lab, "down", "--dir", directory, "--name", host.name], check=True)
