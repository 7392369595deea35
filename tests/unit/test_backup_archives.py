"""Archives on the controller: how they are written, encrypted, opened, and refused before any host is touched."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import rendering

DATE = "20261126T120000Z"
# The last part of a backup, with what the parts before have collected.
PACK = f"""
- hosts: pbx
  gather_facts: false
  vars:
    __backup_date: {DATE}
    __backup_exchange:
      package_version: 1:22.10.1+pbx.0123456789ab
      counts: {{messages: {{'6001': 2}}, greetings: 1, pins: 1, forwards: 1, waiting: 0, rejected: 0}}
    __backup_records: {{records: 200, latest: '2026-11-26 11:59:00'}}
  tasks:
    - ansible.builtin.include_role: {{name: labredes.pbx.backup, tasks_from: pack.yml}}
"""
# The part of a restore that runs on the host.
RESTORE = """
- hosts: pbx
  gather_facts: false
  vars:
    __backup_manifest: {release: 22.10.1}
    backup_archive: /srv/a.tar
  tasks:
    - ansible.builtin.include_role: {name: labredes.pbx.backup, tasks_from: restore.yml}
"""


def start(directory: Path, playbook: Path, hosts: dict) -> subprocess.Popen:
    """Start a playbook on hosts with variables of their own."""
    for name, variables in hosts.items():
        variables.setdefault("backup_directory", f"{directory}/{name}")
    # No host answers there: what connects to one fails.
    common = {
        "ansible_host": "192.0.2.1",
        "ansible_python_interpreter": sys.executable,
        "labredes_secrets_dir": f"{directory}/secrets",
        "labredes_validated": True,
        "pbx_phones": [{"number": "6001", "name": "Ana"}],
    }
    groups = {"all": {"vars": common}, "pbx": {"hosts": hosts}, "builders": {}, "databases": {}}
    (directory / "hosts.yml").write_text(json.dumps(groups))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {
        "ANSIBLE_CONFIG": str(rendering.ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(rendering.ROOT / "collections"),
        "GNUPGHOME": str(directory / "gnupg"),
        "PATH": f"{directory}/bin:{os.environ['PATH']}",
    }
    return subprocess.Popen(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", directory / "hosts.yml", playbook],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(directory: Path, playbook: Path, hosts: dict) -> str:
    """Run a playbook to its end; gives its output as one line."""
    return " ".join(start(directory, playbook, hosts).communicate(timeout=300)[0].split())


def archive(path: Path, changed: dict | None = None, **manifest: object) -> Path:
    """An archive of host pbx1; changed: members with another content than the manifest says."""
    members = {"exchange.tar": b"exchange" * 1000, "records.pgc": b"records" * 1000}
    content = {
        "format": 1,
        "host": "pbx1",
        "date": DATE,
        "release": "22.10.1",
        "members": {name: hashlib.sha256(text).hexdigest() for name, text in members.items()},
        **manifest,
    }
    with tarfile.open(path, "w") as packed:
        for name, text in {"manifest.json": json.dumps(content).encode(), **members, **(changed or {})}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text))
    return path


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A directory with an archive each, plain and encrypted; and the output."""
    directory = tmp_path_factory.mktemp("packed")
    (directory / "gnupg").mkdir(mode=0o700)
    key = subprocess.run(["age-keygen", "-o", directory / "key"], capture_output=True, text=True, check=True)
    gpg = [
        "gpg",
        "--batch",
        "--homedir",
        directory / "gnupg",
        "--passphrase",
        "",
        "--quick-generate-key",
        "ana@example.org",
    ]
    subprocess.run(gpg, capture_output=True, check=True)
    hosts = {
        "plain": {},
        "age": {"backup_age_recipients": re.findall("age1[a-z0-9]+", key.stderr)},
        "gpg": {"backup_gpg_recipients": ["ana@example.org"]},
        "unknown": {"backup_gpg_recipients": ["nobody@example.org"]},
    }
    for name in hosts:
        place = directory / name / f".new-{name}"
        place.mkdir(parents=True)
        (place / "exchange.tar").write_bytes(b"the exchange")
        with tarfile.open(place / "secrets.tar", "w") as secrets:
            member = tarfile.TarInfo("phone_6001")
            member.size = 5
            secrets.addfile(member, io.BytesIO(b"S3cr\n"))
    (directory / "pack.yml").write_text(PACK)
    output = run(directory, directory / "pack.yml", hosts)
    yield directory, output
    subprocess.run(["gpgconf", "--homedir", directory / "gnupg", "--kill", "gpg-agent"], check=False)


@pytest.mark.parametrize(("name", "suffix"), [("plain", ""), ("age", ".age"), ("gpg", ".gpg")])
def test_archive_has_its_name_and_is_readable_by_its_owner_alone(packed, name, suffix):
    directory, output = packed
    (path,) = [path for path in (directory / name).iterdir() if path.is_file()]
    assert path.name == f"{name}-{DATE}.tar{suffix}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (b"the exchange" in path.read_bytes()) == (suffix == "")
    assert f"{name}: {path} has 200 call records up to 2026-11-26 11:59:00" in output


def test_manifest_says_what_the_archive_has(packed):
    with tarfile.open(packed[0] / f"plain/plain-{DATE}.tar") as whole:
        manifest = json.load(whole.extractfile("manifest.json"))
        names = set(whole.getnames())
    assert names == {"manifest.json", "exchange.tar", "secrets.tar"}
    assert manifest["members"]["exchange.tar"] == hashlib.sha256(b"the exchange").hexdigest()
    known = {name: manifest[name] for name in ("format", "host", "date", "release", "package_key", "latest_record")}
    assert known == {
        "format": 1,
        "host": "plain",
        "date": DATE,
        "release": "22.10.1",
        "package_key": "0123456789ab",
        "latest_record": "2026-11-26 11:59:00",
    }
    assert (manifest["counts"]["records"], manifest["counts"]["messages"]) == (200, {"6001": 2})


def test_archive_that_cannot_be_encrypted_is_not_kept(packed):
    directory, output = packed
    assert not [path for path in (directory / "unknown").iterdir() if path.is_file()]
    assert "unknown: the archive cannot be encrypted, so none is kept (gpg: " in output
    assert "check backup_gpg_recipients" in output


def test_killed_backup_leaves_nothing_that_looks_whole(tmp_path):
    place = tmp_path / "pbx1/.new-pbx1"
    place.mkdir(parents=True)
    (place / "exchange.tar").write_bytes(b"the exchange")
    (tmp_path / "pack.yml").write_text(PACK)
    (tmp_path / "bin").mkdir()
    sync = tmp_path / "bin/sync"
    sync.write_text(f"#!/bin/sh\ntouch {tmp_path}/reached\nexec sleep 60\n")
    sync.chmod(0o755)
    process = start(tmp_path, tmp_path / "pack.yml", {"pbx1": {}})
    deadline = time.monotonic() + 120
    while not (tmp_path / "reached").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (place / "archive.tar").exists()
    assert not [path for path in (tmp_path / "pbx1").iterdir() if path.is_file()]


def test_newest_archives_of_the_host_alone_are_kept(tmp_path):
    (tmp_path / "keep.yml").write_text(PACK.replace("pack.yml", "keep.yml"))
    dates = ("20251231T235959Z.tar", "20260101T000000Z.tar.age", "20260102T000000Z.tar", "20260103T000000Z.tar.gpg")
    others = ["pbx1-2-20240101T000000Z.tar", "xpbx1-20240101T000000Z.tar", "pbx1-notes.txt"]
    for name in [*(f"pbx1-{date}" for date in dates), *others]:
        (tmp_path / name).write_text("")
    run(tmp_path, tmp_path / "keep.yml", {"pbx1": {"backup_directory": str(tmp_path), "backup_keep": 2}})
    left = {path.name for path in tmp_path.iterdir() if "pbx1" in path.name}
    assert left == {*others, "pbx1-20260102T000000Z.tar", "pbx1-20260103T000000Z.tar.gpg"}


def test_secrets_come_back_and_newer_ones_stay(packed):
    directory, _output = packed
    kept = directory / "secrets/gpg/phone_6001"
    kept.parent.mkdir(parents=True)
    kept.write_text("n3w\n")
    hosts = {"age": {"backup_age_identity": f"{directory}/key"}, "gpg": {}}
    output = run(directory, rendering.ROOT / "playbooks/restore_secrets.yml", hosts)
    assert "failed=1" not in output, output
    assert "S3cr" not in output and "n3w" not in output
    for name, content in (("age", "S3cr\n"), ("gpg", "n3w\n")):
        path = directory / "secrets" / name / "phone_6001"
        assert path.read_text() == content
        assert name == "gpg" or path.stat().st_mode & 0o777 == 0o600
        assert not [path for path in (directory / name).iterdir() if path.is_dir() and "restore" in path.name]


def test_what_cannot_be_restored_is_refused_in_one_sentence(packed, tmp_path):
    whole = archive(tmp_path / "whole.tar").read_bytes()
    (tmp_path / "half.tar").write_bytes(whole[: len(whole) // 2])
    damaged = "is damaged, so nothing is restored; take another archive."
    expected = {
        "half": (tmp_path / "half.tar", damaged),
        "changed": (archive(tmp_path / "c.tar", {"records.pgc": b"other"}, host="changed"), damaged),
        "other": (
            archive(tmp_path / "o.tar"),
            "is an archive of pbx1; to restore it to other all the same, set backup_from_host=pbx1.",
        ),
        "later": (
            archive(tmp_path / "l.tar", format=2, members={}),
            "has format 2, and this version reads format 1; restore it with the version of labredes.pbx that wrote it.",
        ),
        "locked": (packed[0] / f"age/age-{DATE}.tar.age", "cannot be decrypted (age: error: "),
    }
    hosts = {name: {"backup_archive": str(path)} for name, (path, _message) in expected.items()}
    hosts["locked"]["backup_age_identity"] = str(tmp_path / "whole.tar")
    hosts["none"] = {}
    output = run(tmp_path, rendering.ROOT / "playbooks/restore_secrets.yml", hosts)
    for name, (path, message) in expected.items():
        assert f"{name}: {path} {message}" in output, output
    assert f"none: there is no archive of none in {tmp_path}/none; make one with playbook backup.yml" in output
    assert output.count("failed=1") == len(hosts)
    assert not (tmp_path / "secrets").exists()


def test_archive_is_checked_before_the_host_is_touched(tmp_path):
    """The newest one of the host that is named."""
    archive(tmp_path / "pbx1-20261126T120000Z.tar")
    newest = archive(tmp_path / "pbx1-20261126T130000Z.tar", {"records.pgc": b"damaged"})
    hosts = {"pbx2": {"backup_from_host": "pbx1", "backup_directory": str(tmp_path)}}
    output = run(tmp_path, rendering.ROOT / "playbooks/restore.yml", hosts)
    assert f"pbx2: {newest} is damaged" in output
    assert "unreachable=0 failed=1" in output


def test_archive_of_another_release_is_refused(tmp_path):
    """On the host, before anything is changed there."""
    (tmp_path / "restore.yml").write_text(RESTORE)
    (tmp_path / "bin").mkdir()
    shown = tmp_path / "bin/dpkg-query"
    shown.write_text('#!/bin/sh\ncat "$(dirname "$0")/version"\n')
    shown.chmod(0o755)
    expected = {
        "1:18.2.0+pbx.0123456789ab": "18.2.0; set backup_other_release=true to restore it all the same.",
        "": "none; run site.yml first.",
    }
    for version, sentence in expected.items():
        (tmp_path / "bin/version").write_text(version)
        output = run(tmp_path, tmp_path / "restore.yml", {"pbx1": {"ansible_connection": "local"}})
        assert f"pbx1: /srv/a.tar is of Asterisk 22.10.1, and the host has {sentence}" in output, output
        assert "changed=0" in output
