"""The images and the running containers of `make image-run`, which the tests start where they do not run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = os.environ.get("ENGINE") or "podman"
NAME = os.environ.get("LABREDES_NAME") or "labredes-pbx"
COMMAND = [sys.executable, str(ROOT / "container" / "container.py")]
IMAGES = ("labredes-pbx", "labredes-database", "labredes-records", "labredes-events")
SETTINGS = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "labredes.pbx/containers-0.conf"


def engine(*words: str, check: bool = True, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command of podman or docker."""
    done = subprocess.run(
        [ENGINE, *words], capture_output=True, text=True, timeout=seconds, check=False, env=environment()
    )
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done


def environment() -> dict[str, str]:
    """The environment with which podman works here."""
    return {**os.environ, **({"CONTAINERS_CONF": str(SETTINGS)} if SETTINGS.exists() else {})}


def directory() -> str:
    """The directory of inventory and archives."""
    return os.environ.get("IMAGE_DIR") or str(ROOT / ".image")


@pytest.fixture(scope="session")
def info() -> dict:
    """What `make image-info` prints."""
    if engine("container", "inspect", NAME, check=False).returncode:
        started = subprocess.run([*COMMAND, "up", "--dir", directory()], timeout=1800, check=False)
        assert started.returncode == 0
    shown = subprocess.run([*COMMAND, "info", "--dir", directory()], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)
