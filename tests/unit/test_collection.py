"""The collection builds, installs without a network, and works from anywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import rendering

TOOLS = Path(sys.executable).parent


def tool(room: Path, *command: str | Path, collections: Path | None = None) -> str:
    """Run one of Ansible's programs in a directory of its own, with no configuration; gives its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    (room / "ansible.cfg").write_text("[defaults]\n")
    environment |= {
        "ANSIBLE_CONFIG": str(room / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(collections or room / "none"),
    }
    done = subprocess.run(
        [TOOLS / command[0], *command[1:]],
        cwd=room,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tarball(tmp_path_factory):
    """The collection as `ansible-galaxy collection build` makes it."""
    room = tmp_path_factory.mktemp("build")
    tool(room, "ansible-galaxy", "collection", "build", rendering.ROOT, "--output-path", room)
    (built,) = room.glob("labredes-pbx-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def installed(tarball, tmp_path_factory):
    """A directory of collections that holds it."""
    room = tmp_path_factory.mktemp("install")
    tool(room, "ansible-galaxy", "collection", "install", tarball, "-p", room / "collections", "--offline", "--no-deps")
    return room / "collections"


def test_the_tarball_holds_what_a_user_needs_and_nothing_else(tarball):
    with tarfile.open(tarball) as archive:
        names = {member.name for member in archive}
        links = [member.name for member in archive if member.issym() or member.islnk()]
    tops = {name.split("/")[0] for name in names}
    assert tops <= {
        "MANIFEST.json",
        "FILES.json",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "CONTRIBUTING.md",
        "meta",
        "playbooks",
        "plugins",
        "roles",
        "inventory",
        "site.yml",
        "ansible.cfg",
        "requirements.txt",
        "requirements.yml",
        ".ansible-lint",
        ".gitignore",
        ".yamllint",
        "docs",
    }, tops
    assert not links
    assert {
        "LICENSE",
        "playbooks/site.yml",
        "roles/pbx/tasks/main.yml",
        "roles/asterisk_package/files/debian/rules",
        "plugins/lookup/secret.py",
        "meta/runtime.yml",
    } <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".deb", ".retry"))]


def test_the_version_heads_the_changelog():
    version = rendering.load(rendering.ROOT / "galaxy.yml")["version"]
    assert re.search(r"^## (\S+)", (rendering.ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


def test_the_installed_site_is_whole(installed, tmp_path):
    told = tool(
        tmp_path,
        "ansible-playbook",
        "-i",
        inventory(tmp_path),
        "--syntax-check",
        "labredes.pbx.site",
        collections=installed,
    )
    assert (
        f"playbook: {installed}/ansible_collections/labredes/pbx/playbooks/site.yml" in told and "WARNING" not in told
    )


def test_the_installed_collection_validates(installed, tmp_path):
    told = tool(tmp_path, "ansible-playbook", "-i", inventory(tmp_path), "labredes.pbx.validate", collections=installed)
    assert re.search(r"^pbx1 .*failed=0", told, re.MULTILINE), told


def test_the_installed_plugins_are_documented(installed, tmp_path):
    for kind, name in (("lookup", "secret"), ("module", "verify_call"), ("filter", "package_key")):
        tool(tmp_path, "ansible-doc", "-t", kind, f"labredes.pbx.{name}", collections=installed)


def inventory(room: Path) -> Path:
    """An inventory with one exchange, which is described in its own right."""
    path = room / "hosts.yml"
    path.write_text(
        json.dumps(
            {
                "builders": {},
                "databases": {},
                "pbx": {"hosts": {"pbx1": {"ansible_host": "192.0.2.1", "labredes_language": "en"}}},
            }
        )
    )
    return path
