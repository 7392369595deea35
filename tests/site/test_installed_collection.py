"""The collection as a user has it who installs the tarball: no checkout, no configuration, a new home directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home() -> Iterator[Path]:
    """A home directory with a space in its name, short enough for the sockets of ssh."""
    with tempfile.TemporaryDirectory(prefix="new home ") as directory:
        yield Path(directory)


@pytest.fixture
def controller(home) -> Callable[..., str]:
    """A function that runs one of Ansible's programs in the home directory; gives its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    # The package of the host is kept there.
    cache = environment.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(cache)}

    def run(program: str, *arguments: str | Path) -> str:
        command = [Path(sys.executable).with_name(program), *arguments]
        done = subprocess.run(
            command, cwd=home, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run


def test_installed_collection_finds_nothing_to_change(controller, lab_directory, tmp_path):
    controller("ansible-galaxy", "collection", "build", ROOT, "--output-path", tmp_path)
    (tarball,) = tmp_path.glob("*.tar.gz")
    controller("ansible-galaxy", "collection", "install", tarball, "--offline", "--no-deps")
    output = controller("ansible-playbook", "labredes.pbx.site", "-i", lab_directory.resolve() / "inventory")
    assert set(re.findall(r"changed=(\d+)", output)) == {"0"}, output[-3000:]
    assert "a call went through over" in output
