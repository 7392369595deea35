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
from ansible_collections.labredes.pbx.plugins.filter.scrypt_hash import scrypt_hash

TOOLS = Path(sys.executable).parent


def tool(directory: Path, *command: str | Path, collections: Path | None = None) -> str:
    """Run one of Ansible's programs in a directory of its own, with no configuration; gives its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    (directory / "ansible.cfg").write_text("[defaults]\n")
    environment |= {
        "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(collections or directory / "none"),
    }
    done = subprocess.run(
        [TOOLS / command[0], *command[1:]],
        cwd=directory,
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
    """The collection as `ansible-galaxy collection build` packs it."""
    directory = tmp_path_factory.mktemp("build")
    tool(directory, "ansible-galaxy", "collection", "build", rendering.ROOT, "--output-path", directory)
    (built,) = directory.glob("labredes-pbx-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def installed(tarball, tmp_path_factory):
    """A directory of collections that holds it."""
    directory = tmp_path_factory.mktemp("install")
    tool(
        directory,
        "ansible-galaxy",
        "collection",
        "install",
        tarball,
        "-p",
        directory / "collections",
        "--offline",
        "--no-deps",
    )
    return directory / "collections"


def test_tarball_has_the_files_of_users_alone(tarball):
    with tarfile.open(tarball) as archive:
        names = {member.name for member in archive}
        links = [member.name for member in archive if member.issym() or member.islnk()]
    tops = {name.split("/")[0] for name in names}
    assert tops <= {
        "MANIFEST.json",
        "apir_py",
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
        "apir_py/src/apir_py/server.py",  # role events brings it to the host
        "apir_py/README.md",
    } <= names
    assert not [name for name in names if name.startswith("apir_py/tests") or ".egg-info" in name]
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".deb", ".retry"))]


def test_changelog_begins_with_the_version():
    version = rendering.load(rendering.ROOT / "galaxy.yml")["version"]
    assert re.search(r"^## (\S+)", (rendering.ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


def test_installed_site_passes_syntax_check(installed, tmp_path):
    output = tool(
        tmp_path,
        "ansible-playbook",
        "-i",
        inventory(tmp_path),
        "--syntax-check",
        "labredes.pbx.site",
        collections=installed,
    )
    assert (
        f"playbook: {installed}/ansible_collections/labredes/pbx/playbooks/site.yml" in output
        and "WARNING" not in output
    )


def test_installed_collection_validates_inventory(installed, tmp_path):
    output = tool(
        tmp_path, "ansible-playbook", "-i", inventory(tmp_path), "labredes.pbx.validate", collections=installed
    )
    assert re.search(r"^pbx1 .*failed=0", output, re.MULTILINE), output


def test_installed_plugins_have_documentation(installed, tmp_path):
    for kind, name in (("lookup", "secret"), ("module", "verify_exchange"), ("filter", "package_key")):
        tool(tmp_path, "ansible-doc", "-t", kind, f"labredes.pbx.{name}", collections=installed)


def test_installed_collection_hashes_passwords(installed, tmp_path):
    text = "msg={{ 'kR7vTz0qWm2xBn5c' | labredes.pbx.scrypt_hash('seed of ana') }}"
    output = tool(tmp_path, "ansible", "localhost", "-m", "ansible.builtin.debug", "-a", text, collections=installed)
    assert scrypt_hash("kR7vTz0qWm2xBn5c", "seed of ana") in output


def inventory(directory: Path) -> Path:
    """An inventory with one exchange."""
    path = directory / "hosts.yml"
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
