"""The scripts that start the containers: what they refuse, in one sentence, and what they wait for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import rendering

FILES = rendering.ROOT / "container" / "files"
CONFIGURATION = {
    "asterisk.conf": "[files]\n",
    "modules.conf": "[modules]\n",
    "logger.conf": "[logfiles]\n",
    "ari.conf": "[asterisk]\npassword = s3cret\n",
    "manager.conf": "[general]\nport = 5038\n[lab]\nsecret = s3cret\n",
    "http.conf": "bindport = 8088\ntlsbindaddr = 0.0.0.0:8089\ntlsprivatekey = /etc/ssl/labredes/key.pem\n",
    "pjsip.conf": "[6001]\npassword = s3cret\n",
    "pjsip_transports.conf": "[udp_transport]\ntype = transport\nprotocol = udp\nbind = 0.0.0.0:5060\n",
    "voicemail.conf": "[from-internal]\n",
    "res_odbc.conf": "username => asterisk\npassword => s3cret\n",
    "odbc.ini": "[asterisk]\nServername = localhost\nSSLmode = allow\n",
    "cdr_pgsql.conf": "hostname = localhost\nport = 5432\ntable = cdr\npassword = s3cret\n",
}
EVENTS = ("service.ini", "ami_secret", "database_password")


class Container:
    """A root directory with a script of the image, and programs that note how they are called."""

    def __init__(self, root: Path, script: str):
        self.root, self.script = root, script
        (root / "bin").mkdir(parents=True)
        for name in ("asterisk", "pg_createcluster", "python3", "tail"):
            self.program(name, f'echo "{name} $*"')
        self.program("isql", "cat > /dev/null")
        self.environment = {
            "PATH": f"{root}/bin:/usr/bin:/bin",
            "LABREDES_ROOT": str(root),
            "LABREDES_RELEASE": "22.10.1",
        }

    def program(self, name: str, text: str) -> None:
        """A program of the image."""
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def write(self, path: str, text: str = "x\n", mode: int = 0o640) -> None:
        """A file of a volume."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def start(self) -> subprocess.CompletedProcess[str]:
        """Run the script to its end."""
        command = ["sh", str(FILES / self.script)]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=20, check=False, cwd=self.root
        )

    def refuses(self, *words: str) -> None:
        """Assert that the script ends with one sentence that has these words."""
        done = self.start()
        assert done.returncode == 78, done
        assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith(f"{self.script}: "), done.stderr
        assert done.stderr.endswith(".\n") and all(word in done.stderr for word in words), done.stderr


@pytest.fixture
def pbx(tmp_path) -> Container:
    """An Asterisk whose volumes are as they should be."""
    container = Container(tmp_path / "root", "labredes-pbx")
    for name, text in CONFIGURATION.items():
        container.write(f"etc/asterisk/{name}", text)
    container.write("etc/ssl/labredes/key.pem")
    container.write("proc/net/udp", "  sl  local_address rem_address   st\n")
    for name in ("var/spool/asterisk", "var/log/asterisk", "run/asterisk"):
        (container.root / name).mkdir(parents=True)
    return container


@pytest.fixture
def database(tmp_path) -> Container:
    """A PostgreSQL with empty volumes."""
    container = Container(tmp_path / "root", "labredes-database")
    for name in ("var/lib/postgresql", "etc/postgresql", "run/postgresql"):
        (container.root / name).mkdir(parents=True)
    container.write("usr/lib/postgresql/13/bin/postgres", '#!/bin/sh\necho "postgres $*"\n', 0o755)
    return container


@pytest.fixture
def events(tmp_path) -> Container:
    """An events service whose volumes are as they should be."""
    container = Container(tmp_path / "root", "labredes-events")
    for name in EVENTS:
        container.write(f"etc/labredes-events/{name}")
    for name in ("key.pem", "certificate.pem"):
        container.write(f"etc/ssl/labredes/{name}")
    for name in ("run/labredes-events", "var/lib/labredes-events"):
        (container.root / name).mkdir(parents=True)
    container.write("usr/local/lib/labredes-events/panoramisk-1.4-py3-none-any.whl")
    container.program("python3", 'echo "python3 $* $PYTHONPATH"')
    return container


def test_asterisk_starts_and_notes_its_release(pbx):
    done = pbx.start()
    assert done.returncode == 0 and "asterisk -f -C /etc/asterisk/asterisk.conf" in done.stdout, done
    assert (pbx.root / "var/spool/asterisk/.labredes-release").read_text() == "22.10.1\n"
    assert done.stderr == ""


def test_empty_configuration_is_refused_with_the_cure(pbx):
    shutil.rmtree(pbx.root / "etc/asterisk")
    (pbx.root / "etc/asterisk").mkdir()
    pbx.refuses("the volume of /etc/asterisk is empty", "make image-run")


@pytest.mark.parametrize("name", ["asterisk.conf", "manager.conf", "pjsip.conf", "voicemail.conf"])
def test_missing_file_is_named(pbx, name):
    (pbx.root / "etc/asterisk" / name).unlink()
    pbx.refuses(f"has no {name}")


@pytest.mark.parametrize(("name", "line"), [("manager.conf", "secret = "), ("cdr_pgsql.conf", "password ="),
                                            ("res_odbc.conf", "password => ")])  # fmt: skip
def test_missing_secret_is_refused(pbx, name, line):
    pbx.write(f"etc/asterisk/{name}", f"[x]\n{line}\n")
    pbx.refuses(f"a secret in /etc/asterisk/{name} is missing")


def test_missing_key_is_refused(pbx):
    (pbx.root / "etc/ssl/labredes/key.pem").unlink()
    pbx.refuses("the key /etc/ssl/labredes/key.pem is missing")


@pytest.mark.parametrize("volume", ["var/spool/asterisk", "var/log/asterisk", "run/asterisk"])
def test_missing_volume_is_refused(pbx, volume):
    (pbx.root / volume).rmdir()
    pbx.refuses(f"/{volume} is missing; mount a volume")


def test_unwritable_volume_is_refused(pbx):
    # As on a volume without free space: root may write anywhere else.
    (pbx.root / "var/spool/asterisk/.writable").symlink_to("/dev/full/x")
    pbx.refuses("the volume of /var/spool/asterisk is not writable", "ro")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize("path", ["var/spool/asterisk", "var/spool/asterisk/voicemail"])
def test_wrong_owner_is_refused_with_the_command(pbx, path):
    (pbx.root / path).mkdir(exist_ok=True)
    os.chown(pbx.root / path, 4711, 4711)
    pbx.refuses(f"/{path} belongs to user 4711, not to 0", "chown -R 0:0")


@pytest.mark.parametrize(("noted", "starts"), [("22.10.2", False), ("23.0.0~debian", False), ("22.10.1", True),
                                               ("18.2.0", True)])  # fmt: skip
def test_volume_of_a_newer_release_is_refused(pbx, noted, starts):
    pbx.write("var/spool/asterisk/.labredes-release", f"{noted}\n")
    if starts:
        assert pbx.start().returncode == 0
    else:
        pbx.refuses(f"last used by Asterisk {noted}, which is newer than 22.10.1")


@pytest.mark.parametrize(
    ("table", "port", "state"), [("udp", 5060, "07"), ("tcp", 8088, "0A"), ("tcp6", 8089, "0A"), ("tcp", 5038, "0A")]
)
def test_taken_port_is_named(pbx, table, port, state):
    pbx.write(f"proc/net/{table}", f"  sl\n   0: 00000000:{port:04X} 00000000:0000 {state} 0\n")
    pbx.refuses(f"port {port} ({table[:3]}) is taken")


def test_connections_of_others_take_no_port(pbx):
    pbx.write("proc/net/tcp", "  sl\n   0: 0100007F:1F98 0100007F:D431 01 0\n   1: 0100007F:D431 0100007F:1F98 0A 0\n")
    assert pbx.start().returncode == 0


def test_database_is_waited_for_and_said(pbx):
    count = pbx.root / "count"
    pbx.program(
        "isql",
        f'cat >/dev/null; grep -q s3cret "$ODBCINI" || exit 1; echo x >>{count}; [ $(wc -l <{count}) -gt 2 ] || '
        "{ echo '[08001][unixODBC]connection refused'; exit 1; }",
    )
    done = pbx.start()
    assert done.returncode == 0 and "asterisk -f" in done.stdout, done
    first, last = done.stderr.splitlines()
    assert "waiting for the table cdr of the database at localhost:5432" in first and "connection refused" in first
    assert last == "labredes-pbx: the database at localhost:5432 answers after 2 s."
    assert "s3cret" not in done.stderr + done.stdout


def test_wait_for_the_database_ends_on_sigterm(pbx):
    pbx.program("isql", "cat >/dev/null; exit 1")
    command = ["sh", str(FILES / "labredes-pbx")]
    with subprocess.Popen(command, env=pbx.environment, stderr=subprocess.PIPE, text=True) as waiting:
        assert "waiting for the table" in waiting.stderr.readline()
        begun = time.monotonic()
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(5) == 143
    assert time.monotonic() - begun < 3


def test_new_database_is_made_once(database):
    done = database.start()
    assert done.returncode == 0 and "pg_createcluster 13 main" in done.stderr, done
    assert "postgres -D" in done.stdout
    database.write("var/lib/postgresql/13/main/PG_VERSION", "13\n")
    database.write("var/lib/postgresql/13.log")
    again = database.start()
    assert again.returncode == 0 and again.stderr == "", again


def test_database_of_another_version_is_refused(database):
    (database.root / "var/lib/postgresql/15").mkdir()
    database.refuses("is of PostgreSQL 15, and this image has 13")


def test_lost_data_are_not_replaced_by_an_empty_database(database):
    database.write("etc/postgresql/13/main/postgresql.conf")
    database.refuses("the volume of /var/lib/postgresql is empty, and that of /etc/postgresql is not")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
def test_wrong_owner_of_the_database_is_refused(database):
    os.chown(database.root / "var/lib/postgresql", 4711, 4711)
    database.refuses("/var/lib/postgresql belongs to user 4711")


def test_events_service_starts_with_its_libraries(events):
    done = events.start()
    assert done.returncode == 0, done
    assert "-m apir_py serve /etc/labredes-events/service.ini" in done.stdout and "panoramisk-1.4" in done.stdout
    assert (events.root / "run/labredes-events/key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", EVENTS)
def test_missing_file_of_events_is_named(events, name):
    (events.root / "etc/labredes-events" / name).unlink()
    events.refuses(f"/etc/labredes-events/{name} is missing")


def test_empty_configuration_of_events_is_refused(events):
    shutil.rmtree(events.root / "etc/labredes-events")
    events.refuses("the volume of /etc/labredes-events is empty")


def test_missing_certificate_of_events_is_refused(events):
    (events.root / "etc/ssl/labredes/key.pem").unlink()
    events.refuses("/etc/ssl/labredes/key.pem is missing")
