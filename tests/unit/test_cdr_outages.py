"""Full disks, a network that drops packets, and a server that is killed in the middle of an INSERT lose no record.

A disk is a small file system in memory, so these tests run as root, as those of the lab do.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import psycopg2
import pytest
import records

TABLE = "labredes_test"  # of nftables


def once(server: records.Server, count: int) -> None:
    """Check that the table has so many records, each once."""
    assert server.query("SELECT count(*), count(DISTINCT sequence) FROM cdr") == [(count, count)]


def until(holds) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def call(*command: object) -> None:
    """Run a command that succeeds."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def disk(place: Path, megabytes: int):
    """A file system of a size."""
    place.mkdir(parents=True, exist_ok=True)
    call("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", place)
    try:
        yield
    finally:
        call("umount", "--lazy", place)


def fill(place: Path) -> Path:
    """Fill a file system with one file."""
    path = place / "fill"
    with path.open("wb") as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"\0" * 65536)
            stream.flush()
    return path


@pytest.fixture
def forwarder(server, tmp_path):
    server.query("TRUNCATE cdr")
    made = records.Forwarder(tmp_path, server)
    yield made
    made.stop()


def test_full_disk_of_the_server_is_waited_for(forwarder, server, tmp_path):
    # Every directory above has to be open for the server's own user.
    place = server.directory / "small"
    forwarder.prepare()
    with disk(place, 8), contextlib.closing(server.connect()) as connection:
        (place / "data").mkdir()
        shutil.chown(place / "data", **dict.fromkeys(("user", "group"), "postgres"))
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(f"CREATE TABLESPACE small LOCATION '{place}/data'")
        try:
            cursor.execute("ALTER TABLE cdr SET TABLESPACE small")
            filled = fill(place)
            forwarder.write(*(records.record(number) for number in range(500)))
            forwarder.start("m.LONGEST = 0.5")
            until(lambda: "No space left on device" in forwarder.log.read_text())
            state = forwarder.status()
            assert (state["waiting"], state["rejected"]) == (500, 0)
            filled.unlink()
            forwarder.wait()
            once(server, 500)
        finally:
            forwarder.stop()
            cursor.execute("ALTER TABLE cdr SET TABLESPACE pg_default")
            cursor.execute("DROP TABLESPACE small")


def test_full_disk_of_the_journal_loses_and_doubles_nothing(forwarder, server):
    with disk(forwarder.directory, 2), contextlib.ExitStack() as stack:
        forwarder.prepare()
        # As Asterisk has it open.
        stack.enter_context(contextlib.closing(sqlite3.connect(forwarder.path))).execute("SELECT * FROM rejected")
        forwarder.write(*(records.record(number) for number in range(500)))
        filled = fill(forwarder.directory)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            forwarder.write(*(records.record(number) for number in range(500, 2500)))
        forwarder.start("m.LONGEST = 0.5")
        # What is there arrives all the same.
        until(lambda: server.query("SELECT count(*) FROM cdr") == [(500,)])
        until(lambda: "has only 0 MB left" in forwarder.log.read_text())
        time.sleep(1)
        assert forwarder.process.poll() is None
        filled.unlink()
        forwarder.write(*(records.record(number) for number in range(500, 600)))
        forwarder.wait()
        once(server, 600)
        assert forwarder.status()["rejected"] == 0
        forwarder.stop()


def test_dropped_packets_are_left_after_the_time_limit(forwarder, server):
    forwarder.prepare()
    forwarder.start("m.ANSWER = 1; m.LONGEST = 0.5")
    forwarder.write(records.record(1))
    forwarder.wait()
    call("nft", "add", "table", "inet", TABLE)
    try:
        call("nft", "add", "chain", "inet", TABLE, "out", "{ type filter hook output priority 0; }")
        call("nft", "add", "rule", "inet", TABLE, "out", "tcp", "dport", server.port, "drop")
        forwarder.write(records.record(2))
        until(lambda: "it did not answer within 1 s" in forwarder.log.read_text())
        # Neither does a new connection hang.
        time.sleep(2)
        assert forwarder.status()["waiting"] == 1 and forwarder.process.poll() is None
    finally:
        call("nft", "delete", "table", "inet", TABLE)
    forwarder.wait()
    once(server, 2)


def test_server_killed_during_an_insert_doubles_nothing(forwarder, server):
    server.query(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END'"
    )
    server.query("CREATE TRIGGER slow BEFORE INSERT ON cdr FOR EACH ROW EXECUTE PROCEDURE slow()")
    active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'INSERT INTO %'"
    try:
        forwarder.prepare()
        forwarder.write(*(records.record(number) for number in range(200)))
        forwarder.start("m.LONGEST = 0.5")
        until(lambda: server.query(active) == [(1,)])
        server.kill()
        # Nothing of the batch is there.
        server.start()
        forwarder.wait()
        once(server, 200)
        assert "records wait in the journal" in forwarder.log.read_text()
    finally:
        with contextlib.suppress(psycopg2.Error):
            server.query("DROP FUNCTION slow() CASCADE")
