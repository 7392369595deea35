"""The collection as a user has it who installs the tarball: no checkout, no configuration, a new home directory.

The home has the collections of requirements.yml, with those that they need, and no others; those that the controller's
package `ansible` brings as well are out of sight.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = [one["name"] for one in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]]


@pytest.fixture
def home() -> Iterator[Path]:
    """A home directory with a space in its name, short enough for the sockets of ssh."""
    with tempfile.TemporaryDirectory(prefix="new home ") as directory:
        home = Path(directory)
        for required in with_dependencies(REQUIRED):
            name = Path("ansible_collections", *required.split("."))
            link = home / ".ansible/collections" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(sysconfig.get_path("purelib")) / name)
        yield home


def with_dependencies(names: list[str]) -> list[str]:
    """Collections, and those that Galaxy installs with them."""
    found: list[str] = []
    left = list(names)
    while left:
        found.append(left.pop())
        manifest = Path(sysconfig.get_path("purelib"), "ansible_collections", *found[-1].split("."), "MANIFEST.json")
        left += json.loads(manifest.read_text())["collection_info"]["dependencies"].keys() - {*found, *left}
    return sorted(found)


@pytest.fixture
def controller(home) -> Callable[..., str]:
    """A function that runs one of Ansible's programs in the home directory; gives its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    # The package of the host is kept there.
    cache = environment.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(cache), "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false"}

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
    controller("ansible-galaxy", "collection", "install", tarball, "--offline")
    listed = json.loads(controller("ansible-galaxy", "collection", "list", "--format=json"))
    # ansible-core 2.19 lists one of its own.
    found = {name for path in listed.values() for name in path if name != "ansible._protomatter"}
    assert found == {"labredes.pbx", *with_dependencies(REQUIRED)}
    output = controller("ansible-playbook", "labredes.pbx.site", "-i", lab_directory.resolve() / "inventory")
    assert set(re.findall(r"changed=(\d+)", output)) == {"0"}, output[-3000:]
    assert "a call went through over" in output
