"""The program that copies an exchange to a repository of restic, with a real one, on directories of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import records
import rendering
from exchange_host import Host, message

PROGRAM = rendering.ROLES / "backup/files/labredes_restic.py"
PASSWORD = "n0t-in-any-0utput"
# Notes how restic is called.
SPY = """#!/bin/sh
echo "$@" >> {directory}/called
exec {restic} "$@"
"""


class Copies:
    """An exchange, its repository, and the program."""

    def __init__(self, directory: Path, server: records.Server):
        self.directory, self.repository = directory, directory / "repository"
        self.host = Host(directory / "host")
        message(self.host.mail / "from-internal/6001/INBOX", "msg0000", "1-1")
        self.host.put("/REDIRECT/6001", "6002")
        self.settings = {
            "host": "pbx1",
            "tag": "pbx1",
            "format": 1,
            "keep": {},
            # As templates write numbers.
            "check_parts": "30",
            "warn_hours": "48",
            "content": {**self.host.options(), "files": {}, "package": "labredes-asterisk"},
            "database": {
                "table": "cdr",
                "events": "cel",
                "environment": {
                    "PGHOST": "127.0.0.1",
                    "PGPORT": str(server.port),
                    "PGDATABASE": "asterisk",
                    "PGUSER": "asterisk",
                },
            },
        }
        self.secrets = {"RESTIC_REPOSITORY": str(self.repository), "RESTIC_PASSWORD": PASSWORD}
        (directory / "bin").mkdir()
        real = subprocess.run(["which", "restic"], capture_output=True, text=True, check=True).stdout.strip()
        for name, text in {
            "restic": SPY.format(directory=directory, restic=real),
            "dpkg-query": "#!/bin/sh\nprintf '1:22.10.1+pbx.0123456789ab'\n",
        }.items():
            (directory / "bin" / name).write_text(text)
            (directory / "bin" / name).chmod(0o755)

    def start(self, *arguments: str, code: str = "") -> subprocess.Popen:
        """Start a command of the program; code runs first, with the program as `m`."""
        for name in ("settings", "secrets"):
            (self.directory / f"{name}.json").write_text(json.dumps(getattr(self, name)))
        paths = {name.upper(): str(self.directory / f"{name}.json") for name in ("settings", "secrets", "status")}
        lines = [f"m.{name} = {path!r}" for name, path in {**paths, "CACHE": str(self.directory / "cache")}.items()]
        start = [f"import sys; sys.path[:0] = [{str(PROGRAM.parent)!r}, {str(rendering.ROOT / 'collections')!r}]"]
        code = "\n".join([*start, "import labredes_restic as m", *lines, code, "sys.exit(m.main(sys.argv[1:]))"])
        environment = {**os.environ, "PATH": f"{self.directory}/bin:{os.environ['PATH']}"}
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def run(self, *arguments: str, code: str = "", fails: bool = False) -> str:
        """Run a command to its end; returns what it prints, or the sentence with which it fails."""
        process = self.start(*arguments, code=code)
        output, errors = process.communicate(timeout=120)
        assert (process.returncode != 0) == fails, output + errors
        assert PASSWORD not in output + errors
        assert not fails or errors.count("\n") == 1, errors
        return errors if fails else output

    def status(self) -> dict:
        """What the status file says."""
        return json.loads((self.directory / "status.json").read_text())

    def snapshots(self) -> list[dict]:
        """The copies in the repository."""
        return json.loads(self.run("restic", "snapshots", "--json"))


def lock(copies: Copies) -> subprocess.Popen:
    """Start restic, which uses the repository until its standard input ends; nobody else has it alone meanwhile."""
    process = subprocess.Popen(
        [copies.directory / "bin/restic", "backup", "--stdin"],
        env={**os.environ, **copies.secrets},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not [path for path in copies.repository.glob("locks/*") if "tmp" not in path.name]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """An empty repository, which takes restic a second."""
    path = tmp_path_factory.mktemp("empty") / "repository"
    environment = {**os.environ, "RESTIC_REPOSITORY": str(path), "RESTIC_PASSWORD": PASSWORD}
    subprocess.run(["restic", "init"], env=environment, capture_output=True, check=True)
    return path


@pytest.fixture
def copies(server, tmp_path, empty):
    """An exchange with 50 call records and an empty repository."""
    server.query("TRUNCATE cdr, cel")
    server.query("INSERT INTO cel (eventtime, eventtype, uniqueid) VALUES (now(), 'CHAN_START', 'a-1')")
    server.query(
        "INSERT INTO cdr (calldate, src, uniqueid, sequence)"
        " SELECT '2026-01-01'::timestamp + n * interval '1 h', '6001', 'a-' || n, n FROM generate_series(1, 50) n"
    )
    shutil.copytree(empty, tmp_path / "repository")
    (tmp_path / "cache").mkdir()
    (tmp_path / "status.json").write_text(json.dumps({"since": int(time.time())}))
    return Copies(tmp_path, server)


def test_repository_is_made_once(copies):
    shutil.rmtree(copies.repository)
    (copies.directory / "status.json").unlink()
    assert copies.run("prepare") == "changed: a new repository\n"
    assert abs(copies.status()["since"] - time.time()) < 60
    assert copies.run("prepare") == "the repository opens\n"


def test_copy_is_an_archive_that_can_be_restored(copies, tmp_path):
    assert copies.run("copy") == "Copied 50 call records and 1 messages.\n"
    out = tmp_path / "out"
    out.mkdir()
    manifest = json.loads(copies.run("fetch", "pbx1", "latest", str(out)))
    assert (out / "archive.tar").stat().st_mode & 0o777 == 0o600
    with tarfile.open(out / "archive.tar") as archive:
        contents = {name: archive.extractfile(name).read() for name in archive.getnames()}
    assert json.loads(contents.pop("manifest.json")) == manifest
    assert {name: hashlib.sha256(text).hexdigest() for name, text in contents.items()} == manifest["members"]
    assert set(contents) == {"exchange.tar", "records.pgc"}
    known = {name: manifest[name] for name in ("format", "host", "release", "package_key", "latest_record")}
    assert known == {
        "format": 1,
        "host": "pbx1",
        "release": "22.10.1",
        "package_key": "0123456789ab",
        "latest_record": "2026-01-03 02:00:00",
    }
    assert manifest["counts"]["messages"] == {"6001": 1} and manifest["counts"]["forwards"] == 1
    assert (manifest["counts"]["records"], manifest["counts"]["events"]) == (50, 1)
    assert b"CHAN_START" in contents["records.pgc"]
    assert not list((tmp_path / "cache").glob("*.tar")) and not (tmp_path / "cache/new").exists()
    # No secret is an argument.
    called = (tmp_path / "called").read_text()
    assert "backup --quiet --tag pbx1 archive.tar" in called and "check --read-data-subset=" in called
    assert PASSWORD not in called and str(copies.repository) not in called


def test_failed_copy_is_seen(copies, tmp_path):
    copies.run("copy")
    assert copies.status()["problem"] == "" and json.loads(copies.run("age")) == copies.status()
    copies.repository.rename(tmp_path / "elsewhere")
    said = copies.run("copy", fails=True)
    assert said.startswith("<3>Restic unlock ended with 1 (Fatal: ") and str(copies.repository) not in said
    assert copies.status()["problem"] == said[3:-1]
    # Until the time is over nobody is alarmed by it.
    copies.run("age")
    copies.settings["warn_hours"] = "-1"
    assert "the last copy off the site was made and checked: 20" in copies.run("age", fails=True).lower()


def test_copy_that_was_never_made_is_too_old(copies):
    copies.run("age")
    (copies.directory / "status.json").unlink()
    assert "made and checked: never; see journalctl" in copies.run("age", fails=True)


def test_copy_without_its_check_is_too_old(copies):
    """As where the repository is damaged for longer than the time."""
    status = {"since": 0, "copied": int(time.time()), "checked": 1_790_000_000}
    (copies.directory / "status.json").write_text(json.dumps(status))
    assert "made and checked: 2026-09-21 14:13 UTC" in copies.run("age", fails=True)


def test_other_password_is_refused(copies):
    copies.secrets["RESTIC_PASSWORD"] = "an0ther-passw0rd"
    said = copies.run("prepare", fails=True)
    assert said.startswith("<3>The repository does not open (Fatal: wrong password")
    assert "check backup_restic_repository, backup_restic_environment and the secret restic_password" in said


def test_damaged_repository_fails_the_copy(copies):
    copies.settings["check_parts"] = "1"
    copies.run("copy")
    pack = max((path for path in copies.repository.glob("data/*/*")), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    content = pack.read_bytes()
    pack.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    assert copies.run("copy", fails=True).startswith("<3>Restic check ended with 1 (")
    assert copies.status()["problem"]


def test_database_without_channel_events_is_copied(copies):
    copies.settings["database"]["events"] = "missing"
    assert copies.run("copy").startswith("Copied 50 call records")


def test_old_copies_go_and_those_of_other_exchanges_stay(copies):
    copies.settings["keep"] = {"last": 1}
    for tag in ("pbx2", "pbx1", "pbx1"):
        copies.settings["tag"] = tag
        copies.run("copy")
    assert [snapshot["tags"] for snapshot in copies.snapshots()] == [["pbx2"], ["pbx1"]]


def test_killed_copy_does_not_stop_the_next(copies, tmp_path):
    process = copies.start("copy", code="m.make_archive = lambda *_: (print(flush=True), m.time.sleep(60))")
    process.stdout.readline()
    (tmp_path / "cache/archive.tar").write_text("half")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    # A lock that restic left when it was killed, too.
    killed = lock(copies)
    killed.kill()
    killed.communicate()
    copies.run("copy", code="m.LOCKED = 0")
    assert len(copies.snapshots()) == 1


def test_repository_that_another_exchange_locks_is_waited_for(copies, tmp_path):
    other = lock(copies)
    process = copies.start("copy", code="m.RETRY = 0.2")
    deadline = time.monotonic() + 60
    while (tmp_path / "called").read_text().count("check --read-data") < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    other.communicate()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and output.startswith("Copied 50"), errors
    assert (tmp_path / "called").read_text().count("check --read-data") > 1


def test_database_that_does_not_answer_fails_the_copy(copies):
    copies.settings["database"]["environment"]["PGPORT"] = "1"
    said = copies.run("copy", fails=True)
    assert said.startswith("<3>The call records cannot be dumped (pg_dump: error: ")
    assert copies.snapshots() == []
