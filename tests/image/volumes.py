"""Copies of the volumes of the running exchange, and containers that are started with them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml
from conftest import NAME, ROOT, engine

COMPOSE = yaml.safe_load((ROOT / "container" / "compose.yml").read_text())
CONFINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")


class Copy:
    """A copy of the volumes of one service, which a test may damage."""

    def __init__(self, service: str, copied: bool = True):
        self.service = service
        self.name = f"{NAME}-copy"
        self.volumes = [volume.split(":") for volume in COMPOSE["services"][service]["volumes"]]
        self.image = f"localhost/labredes-{service}:latest"
        self.remove()
        for volume, path, *_mode in self.volumes:
            engine("volume", "create", f"{self.name}-{volume}")
            if copied:
                self._root("cp -a /from/. /to/", f"{NAME}-{volume}:/from:ro", f"{self.name}-{volume}:/to")
            else:  # as an engine makes it for a new container
                self._root(f"chmod --reference={path} /to; chown --reference={path} /to", f"{self.name}-{volume}:/to")

    def _root(self, script: str, *volumes: str) -> None:
        mounts = [f"--volume={volume}" for volume in volumes]
        engine("run", "--rm", "--network=none", "--user=0", "--entrypoint=sh", *mounts, self.image, "-c", script)

    def change(self, script: str) -> None:
        """Run a shell script as root on the copies."""
        self._root(script, *(f"{self.name}-{volume}:{path}" for volume, path, *_mode in self.volumes))

    def start(self, *options: str, read_only: str = "", confined: tuple[str, ...] = CONFINED) -> None:
        """Start the service with the copies; read_only: a volume that cannot be written to."""
        mounts = [
            f"--volume={self.name}-{volume}:{path}:{'ro' if volume == read_only else (mode or ['rw'])[0]}"
            for volume, path, *mode in self.volumes
        ]
        engine("run", "--detach", f"--name={self.name}", *confined, *mounts, *options, self.image)

    def running(self) -> bool:
        """Whether the container runs."""
        shown = engine("inspect", "--format", "{{.State.Running}}", self.name, check=False)
        return shown.stdout.strip() == "true"

    def words(self) -> str:
        """What the container has said."""
        shown = engine("logs", self.name)
        return shown.stdout + shown.stderr

    def refusal(self, *options: str, **more) -> str:
        """The one sentence with which the container refuses to start, at once and with exit code 78."""
        self.start(*options, **more)
        code = engine("wait", self.name, seconds=20).stdout.strip()
        words = self.words()
        engine("rm", "--force", self.name)
        assert code == "78", (code, words)
        assert len(words.splitlines()) == 1 and words.endswith(".\n"), words
        return words

    def remove(self) -> None:
        """Remove container and copies."""
        engine("rm", "--force", self.name, check=False)
        for volume, _path, *_mode in self.volumes:
            engine("volume", "rm", "--force", f"{self.name}-{volume}", check=False)


def script(text: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program with the modules of container/, such as compose."""
    import os
    import sys

    paths = f"{ROOT / 'container'}:{ROOT / 'lab'}"
    return subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=Path(ROOT),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
