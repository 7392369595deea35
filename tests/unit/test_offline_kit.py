"""The offline kit: what it has, and that nothing else is needed where there is no network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rendering
import yaml
from package_role import CONTENT, release

ALONE = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
# What a run asks for on the controller, of the roles that were installed from the kit.
NEEDS = {
    "hosts": "pbx",
    "gather_facts": False,
    "tasks": [
        {"ansible.builtin.include_role": {"name": "labredes.pbx.asterisk_package", "tasks_from": "files.yml"}},
        {"ansible.builtin.include_vars": str(rendering.ROLES / "events/vars/default.yml")},
        {"ansible.builtin.include_role": {"name": "labredes.pbx.events", "tasks_from": "download.yml"}},
    ],
}


def run(words: list[str | Path], directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory, without the settings of this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PIP_"))}
    home = {"HOME": str(directory), "ANSIBLE_LOCALHOST_WARNING": "False"}
    return subprocess.run(
        words, cwd=directory, env=kept | home | environment, capture_output=True, text=True, timeout=240, check=False
    )


def inventory(directory: Path, cache: Path, **more: str) -> Path:
    """An inventory of two hosts that need the same release, which is made of small files."""
    common = {
        "ansible_host": "192.0.2.10",
        "asterisk_package_release": "1.0",
        "asterisk_package_extra_releases": {"1.0": release()},
        "asterisk_package_enable": [],
        "asterisk_package_cache": str(cache),
        "labredes_secrets_dir": str(directory / "secrets"),
        **more,
    }
    path = directory / "hosts.json"
    path.write_text(json.dumps({"pbx": {"vars": common, "hosts": {"pbx1": {}, "pbx2": {}}}}))
    return path


@pytest.fixture(name="kit", scope="module")
def fixture_kit(tmp_path_factory) -> Path:
    """A kit, made as `make bundle` makes it, where packages of two releases were built."""
    directory = tmp_path_factory.mktemp("kit")
    packages = directory / "cache/packages"
    packages.mkdir(parents=True)
    for name in ("labredes-asterisk_1.0_debian11_amd64_0.deb", "labredes-asterisk_1.1_debian11_amd64_0.deb"):
        (packages / name).write_bytes(b"a package")
    done = collect(directory, directory / "kit")
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "kit"


def collect(directory: Path, kit: Path) -> subprocess.CompletedProcess[str]:
    """Run the playbook that makes a kit."""
    mirror = directory / "mirror"
    mirror.mkdir()
    for name in ("a.tar.gz", "pjproject-1.tar.bz2"):
        (mirror / name).write_bytes(CONTENT)
    settings = {"asterisk_package_mirror": str(mirror), "labredes_offline_kit_dir": str(kit)}
    hosts = inventory(directory, directory / "cache", **settings)
    program = Path(sys.executable).with_name("ansible-playbook")
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    words = [program, rendering.ROOT / "playbooks/offline_kit.yml", "-i", hosts]
    return run(words, directory, **pip, PATH=path, ANSIBLE_CONFIG=str(rendering.ROOT / "ansible.cfg"))


def test_every_file_of_the_kit_has_its_checksum(kit):
    listed = dict(reversed(line.split("  ./")) for line in (kit / "SHA256SUMS").read_text().splitlines())
    there = {str(path.relative_to(kit)) for path in kit.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    assert set(listed) == there
    assert all(hashlib.sha256((kit / name).read_bytes()).hexdigest() == digest for name, digest in listed.items())


def test_kit_has_what_was_built_of_its_release_alone(kit):
    assert [path.name for path in (kit / "cache/packages").iterdir()] == ["labredes-asterisk_1.0_debian11_amd64_0.deb"]
    assert "labredes-asterisk_1.0_debian11_amd64_0.deb" in (kit / "VERSIONS").read_text()


def test_kit_is_enough_without_a_network(kit, tmp_path):
    (tmp_path / "play.yml").write_text(yaml.safe_dump([NEEDS]))
    offline = tmp_path / "offline"
    run(["cp", "-r", kit, offline], tmp_path).check_returncode()
    hosts = inventory(tmp_path, offline / "cache")
    script = f"""
        set -eu
        (cd {offline} && sha256sum --check --quiet SHA256SUMS)
        {sys.executable} -m venv venv
        venv/bin/pip install -q --no-index --find-links={offline}/wheels -r {offline}/requirements.txt
        venv/bin/ansible-galaxy collection install --offline -p collections {offline}/collections/*.tar.gz
        venv/bin/ansible-playbook -i {hosts} play.yml
        venv/bin/ansible-playbook -i {hosts} --syntax-check labredes.pbx.site
    """
    done = run([*ALONE, "bash", "-c", script], tmp_path, ANSIBLE_COLLECTIONS_PATH=str(tmp_path / "collections"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_directory_of_something_else_is_refused(tmp_path):
    kit = tmp_path / "documents"
    kit.mkdir()
    (kit / "letter.txt").write_text("a letter")
    done = collect(tmp_path, kit)
    assert done.returncode != 0
    assert f"{kit} has files and is no offline kit; set" in " ".join(done.stdout.split())
    assert [path.name for path in kit.iterdir()] == ["letter.txt"]
