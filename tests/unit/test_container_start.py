"""The scripts that start the containers: what they refuse, in one sentence, and what they wait for."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
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
    "cdr_pgsql.conf": "hostname = /run/labredes-cdr\nport = 5432\ntable = cdr\npassword = s3cret\n",
    "cdr_sqlite3_custom.conf": "[master]\ntable = cdr_0\n",
}
JOURNAL = "var/lib/labredes-cdr/journal.db"
EVENTS = ("service.ini", "ami_secret", "database_password")


class Container:
    """A root directory with a script of the image, and programs that note how they are called."""

    def __init__(self, root: Path, script: str):
        self.root, self.script = root, script
        (root / "bin").mkdir(parents=True)
        for name in ("asterisk", "labredes-cdr", "pg_conftool", "pg_createcluster", "python3", "tail"):
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
    for name in ("var/spool/asterisk", "var/log/asterisk", "run/asterisk", "run/labredes-cdr"):
        (container.root / name).mkdir(parents=True)
    container.write(JOURNAL)
    os.mknod(container.root / "run/labredes-cdr/.s.PGSQL.5432", stat.S_IFSOCK | 0o660)
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
def records(tmp_path) -> Container:
    """A service of the call records whose volumes are as they should be."""
    container = Container(tmp_path / "root", "labredes-records")
    container.write("etc/labredes-cdr/cdr.conf", "[journal]\ndirectory = /var/lib/labredes-cdr\n")
    container.write("etc/labredes-cdr/pgpass", mode=0o600)
    for name in ("run/labredes-cdr", "var/lib/labredes-cdr"):
        (container.root / name).mkdir(parents=True)
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
    assert (pbx.root / "var/log/asterisk/master.db").readlink() == Path("/", JOURNAL)
    assert done.stderr == ""


def test_other_file_in_the_journals_place_is_kept(pbx):
    pbx.write("var/log/asterisk/master.db", "records")
    assert pbx.start().returncode == 0
    assert (pbx.root / "var/log/asterisk/master.db.~1~").read_text() == "records"
    assert (pbx.root / "var/log/asterisk/master.db").readlink() == Path("/", JOURNAL)


def test_start_without_cdr_pgsql_asks_no_database(pbx):
    (pbx.root / "etc/asterisk/cdr_pgsql.conf").unlink()
    pbx.program("isql", "exit 1")
    done = pbx.start()
    assert done.returncode == 0 and done.stderr == "", done


def test_empty_configuration_is_refused_with_the_cure(pbx):
    shutil.rmtree(pbx.root / "etc/asterisk")
    (pbx.root / "etc/asterisk").mkdir()
    pbx.refuses("the volume of /etc/asterisk is empty", "make image-run")


@pytest.fixture
def demo(pbx) -> Container:
    """An Asterisk without configuration, whose image has a demo exchange."""
    shutil.rmtree(pbx.root / "etc/asterisk")
    (pbx.root / "etc/asterisk").mkdir()
    shutil.rmtree(pbx.root / "var/lib/labredes-cdr")
    template = "usr/share/labredes-pbx/demo"
    for name, text in CONFIGURATION.items():
        if name not in ("cdr_pgsql.conf", "http.conf"):
            pbx.write(f"{template}/{name}", text.replace("s3cret", "@ami_lab@"), 0o644)
    pbx.write(f"{template}/asterisk.conf", "[directories]\nastetcdir => /etc/asterisk\n", 0o644)
    pbx.write(f"{template}/pjsip.conf", "[6001]\npassword = @phone_6001@\n", 0o644)
    pbx.write(f"{template}/voicemail.conf", "6001 => @mailbox_6001@,Ana\n", 0o644)
    pbx.write(f"{template}/secrets", "ami_lab\nmailbox_6001\nphone_6001\n", 0o644)
    pbx.program("asterisk", 'echo "asterisk $* $ODBCINI"')
    pbx.environment["LABREDES_DEMO"] = "yes"
    return pbx


def test_demo_starts_with_passwords_of_its_own(demo):
    done = demo.start()
    kept = demo.root / "var/spool/asterisk/demo"
    assert done.returncode == 0, done
    assert "asterisk -f -C /var/spool/asterisk/demo/asterisk.conf /var/spool/asterisk/demo/odbc.ini" in done.stdout
    passwords = dict(line.split() for line in (kept / "passwords").read_text().splitlines())
    assert set(passwords) == {"phone_6001", "mailbox_6001"}
    assert f"password = {passwords['phone_6001']}\n" in (kept / "pjsip.conf").read_text()
    assert len(passwords["phone_6001"]) == 32 and re.fullmatch("[0-9]{6}", passwords["mailbox_6001"])
    assert "astetcdir => /var/spool/asterisk/demo\n" in (kept / "asterisk.conf").read_text()
    assert "@" not in "".join(path.read_text() for path in kept.iterdir())
    assert all(path.stat().st_mode & 0o007 == 0 for path in [kept, *kept.iterdir()])
    assert len(done.stderr.splitlines()) == 1 and "/var/spool/asterisk/demo/passwords" in done.stderr
    assert not any(value in done.stderr + done.stdout for value in passwords.values())


def test_demo_of_yesterday_keeps_its_passwords(demo):
    former = demo.start() and (demo.root / "var/spool/asterisk/demo/passwords").read_text()
    assert demo.start().returncode == 0
    assert (demo.root / "var/spool/asterisk/demo/passwords").read_text() == former


def test_demo_does_not_take_the_place_of_an_exchange(pbx):
    pbx.environment["LABREDES_DEMO"] = "yes"
    done = pbx.start()
    assert done.returncode == 0 and "-C /etc/asterisk/asterisk.conf" in done.stdout, done
    assert done.stderr == "labredes-pbx: /etc/asterisk has an exchange, which starts instead of the demo.\n"


def test_demo_starts_where_it_is_asked_for_alone(demo):
    del demo.environment["LABREDES_DEMO"]
    demo.refuses("the volume of /etc/asterisk is empty", "make image-run", "LABREDES_DEMO=yes")


def test_demo_refuses_an_unwritable_volume(demo):
    (demo.root / "var/spool/asterisk/.writable").symlink_to("/dev/full/x")
    demo.refuses("the volume of /var/spool/asterisk is not writable")


@pytest.mark.parametrize("name", ["asterisk.conf", "manager.conf", "pjsip.conf", "cdr_sqlite3_custom.conf"])
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


@pytest.mark.parametrize("volume", ["var/spool/asterisk", "var/log/asterisk", "run/asterisk", "var/lib/labredes-cdr"])
def test_missing_volume_is_refused(pbx, volume):
    shutil.rmtree(pbx.root / volume)
    pbx.refuses(f"/{volume} is missing; mount a volume")


@pytest.mark.parametrize("volume", ["var/spool/asterisk", "var/lib/labredes-cdr"])
def test_unwritable_volume_is_refused(pbx, volume):
    # As on a volume without free space: root may write anywhere else.
    (pbx.root / volume / ".writable").symlink_to("/dev/full/x")
    pbx.refuses(f"the volume of /{volume} is not writable", "ro")


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
    assert "waiting for the table cdr of the database (" in first and "connection refused" in first
    assert last == "labredes-pbx: the table cdr of the database is there after 2 s."
    assert "s3cret" not in done.stderr + done.stdout


def test_start_without_the_database_after_a_minute(pbx):
    pbx.program("isql", "cat >/dev/null; echo '[08001][unixODBC]connection refused'; exit 1")
    pbx.program("sleep", ":")
    done = pbx.start()
    assert done.returncode == 0 and "asterisk -f" in done.stdout, done
    assert [line.rpartition("; ")[2] for line in done.stderr.splitlines()] == [
        "waited 0 s.",
        "waited 30 s.",
        "call records wait in the journal until it answers.",
    ]


def test_missing_service_of_the_records_is_named(pbx):
    (pbx.root / "run/labredes-cdr/.s.PGSQL.5432").unlink()
    pbx.program("sleep", ":")
    done = pbx.start()
    assert done.returncode == 0 and "(labredes-records does not run)" in done.stderr, done


def test_asterisk_waits_for_the_journal(pbx):
    (pbx.root / JOURNAL).unlink()
    pbx.program("sleep", f"[ -e {pbx.root}/slept ] && echo x >{pbx.root}/{JOURNAL}; : >{pbx.root}/slept")
    done = pbx.start()
    assert done.returncode == 0 and "asterisk -f" in done.stdout, done
    first, last = done.stderr.splitlines()
    assert "waiting for the journal /var/lib/labredes-cdr/journal.db, which labredes-records makes; waited 0 s" in first
    assert last.endswith("is there after 2 s.")


@pytest.mark.parametrize("missing", ["database", "journal"])
def test_wait_ends_on_sigterm(pbx, missing):
    pbx.program("isql", "cat >/dev/null; exit 1")
    if missing == "journal":
        (pbx.root / JOURNAL).unlink()
    command = ["sh", str(FILES / "labredes-pbx")]
    with subprocess.Popen(command, env=pbx.environment, stderr=subprocess.PIPE, text=True) as waiting:
        assert "waiting for the " in waiting.stderr.readline()
        begun = time.monotonic()
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(5) == 143
    assert time.monotonic() - begun < 3


def test_new_database_is_made_once(database):
    done = database.start()
    assert done.returncode == 0 and "pg_createcluster 13 main" in done.stderr, done
    assert "pg_conftool 13 main remove external_pid_file" in done.stdout and "postgres -D" in done.stdout
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


def test_service_of_the_records_prepares_the_journal(records):
    records.write("run/labredes-cdr/status.json", "{}")
    done = records.start()
    assert done.returncode == 0 and done.stdout == "labredes-cdr prepare\nlabredes-cdr run\n", done
    assert not (records.root / "run/labredes-cdr/status.json").exists(), "of the former start"


def test_journal_that_cannot_be_prepared_ends_the_start(records):
    records.program("labredes-cdr", "[ $1 = run ] || { echo 'The journal cannot be used.' >&2; exit 1; }")
    done = records.start()
    assert done.returncode == 78 and done.stderr == "The journal cannot be used.\n", done


@pytest.mark.parametrize("name", ["cdr.conf", "pgpass"])
def test_missing_file_of_the_records_is_named(records, name):
    (records.root / "etc/labredes-cdr" / name).unlink()
    records.refuses(f"/etc/labredes-cdr/{name} is missing")


def test_empty_configuration_of_the_records_is_refused(records):
    shutil.rmtree(records.root / "etc/labredes-cdr")
    records.refuses("the volume of /etc/labredes-cdr is empty", "make image-run")


def test_other_directory_of_the_journal_is_refused(records):
    records.write("etc/labredes-cdr/cdr.conf", "[journal]\ndirectory = /srv/journal\n")
    records.refuses("labredes_cdr_directory is /srv/journal", "/var/lib/labredes-cdr")


@pytest.mark.parametrize("volume", ["run/labredes-cdr", "var/lib/labredes-cdr"])
def test_volume_of_the_records_is_checked(records, volume):
    (records.root / volume / ".writable").symlink_to("/dev/full/x")
    records.refuses(f"the volume of /{volume} is not writable")
    shutil.rmtree(records.root / volume)
    records.refuses(f"/{volume} is missing")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
def test_wrong_owner_of_the_journal_is_refused(records):
    os.chown(records.root / "var/lib/labredes-cdr", 4711, 4711)
    records.refuses("/var/lib/labredes-cdr belongs to user 4711", "chown -R 0:0")


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
