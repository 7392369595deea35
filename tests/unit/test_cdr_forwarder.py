"""Call records reach PostgreSQL exactly once, whatever is killed, frozen or damaged on their way."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sqlite3
import time

import pytest
import records

# (method, whether before or after it) at which the service is killed.
KILLED = [
    ("Journal.read", "before"),
    ("Journal.read", "after"),
    ("Database._connect", "before"),
    ("Database._connect", "after"),
    ("Database._insert", "before"),
    ("Database._insert", "after"),
    ("Database.insert", "after"),
    ("Journal.remove", "before"),
    ("Journal.remove", "after"),
    ("Forwarder.report", "before"),
]
KILL = """
import os, signal
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
owner, name = m.{0}, {1!r}
real = getattr(owner, name)
def instead(*given, **named):
    if {2!r} == "before" and {3}:
        die()
    answer = real(*given, **named)
    {3} and die()
    return answer
setattr(owner, name, instead)
"""
# Where Event.wait has its lock, and before a sleep.
STOPPED_IN_ITS_WAIT = """
import os, signal, sys
def stop(frame, _event, called):
    names = [frame.f_code.co_name]
    while frame.f_back:
        frame = frame.f_back
        names.append(frame.f_code.co_name)
    if names[:3] == ["wait", "wait", "run"] or getattr(called, "__name__", "") == "sleep":
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)
sys.setprofile(stop)
"""


@pytest.fixture
def forwarder(server, tmp_path):
    server.query("TRUNCATE cdr")
    made = records.Forwarder(tmp_path, server)
    made.prepare()
    yield made
    made.stop()


def once(server, count: int) -> None:
    """Check that the table has so many records, each once."""
    assert server.query("SELECT count(*), count(DISTINCT sequence) FROM cdr") == [(count, count)]


def until(holds) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def counts(forwarder) -> tuple[int, int]:
    """How many records wait, and how many are refused."""
    state = forwarder.status()
    return state["waiting"], state["rejected"]


def test_record_arrives_as_asterisk_itself_writes_it(forwarder, server):
    forwarder.write(records.record(1, userfield="O'Higgins \\ 50 %", lastdata="PJSIP/6002,30"))
    forwarder.start()
    forwarder.wait()
    [row] = server.query(
        "SELECT calldate::text, clid, src, dst, duration, billsec, disposition, amaflags, uniqueid, sequence,"
        " userfield, lastdata, accountcode FROM cdr"
    )
    assert row == (
        "2026-09-21 14:13:21",
        '"Ana Ruiz" <6001>',
        "6001",
        "6002",
        7,
        5,
        "ANSWERED",
        3,
        "pbx1-1790000001.1",
        1,
        "O'Higgins \\ 50 %",
        "PJSIP/6002,30",
        "",
    )
    assert forwarder.stop() == 0


def test_record_arrives_within_two_seconds(forwarder, server):
    forwarder.start("m.POLL = 0.5; m.REPORT = 2")  # as on a host
    delays = []
    for number in range(1, 7):
        forwarder.write(records.record(number))
        began = time.monotonic()
        while not server.query("SELECT 1 FROM cdr WHERE sequence = %s", (number,)):
            assert time.monotonic() - began < 2
            time.sleep(0.02)
        delays.append(time.monotonic() - began)
        time.sleep(random.Random(number).uniform(0, 0.2))
    assert max(delays) < 2


def test_outage_is_caught_up_in_batches(forwarder, server):
    forwarder.write(*(records.record(number) for number in range(3000)))
    began = time.monotonic()
    forwarder.start()
    forwarder.wait()
    # Row by row it takes ten times as long; `make soak-records` measures 2,000 a second on a quiet machine.
    assert time.monotonic() - began < 15
    once(server, 3000)


@pytest.mark.parametrize(("method", "when"), KILLED)
def test_killed_service_loses_and_doubles_nothing(forwarder, server, method, when):
    forwarder.write(*(records.record(number) for number in range(30)))
    owner, name = method.split(".")
    forwarder.start(KILL.format(owner, name, when, "len(given) > 0"))
    assert forwarder.process.wait(timeout=20) == -signal.SIGKILL
    forwarder.write(*(records.record(number) for number in range(30, 40)))
    forwarder.start()
    forwarder.wait()
    once(server, 40)


def test_service_that_is_stopped_while_it_waits_ends(forwarder):
    """Its handler of SIGTERM takes no lock, which the interrupted wait may hold."""
    forwarder.start(STOPPED_IN_ITS_WAIT)
    assert forwarder.process.wait(timeout=20) == 0


def test_record_that_asterisk_wrote_itself_is_not_doubled(forwarder, server):
    forwarder.write(records.record(1))
    forwarder.start()
    forwarder.wait()
    forwarder.write(records.record(1), records.record(2))
    forwarder.wait()
    once(server, 2)
    assert forwarder.status()["rejected"] == 0


def test_other_call_of_the_same_key_is_kept(forwarder, server):
    """As after a clock was set back an hour and Asterisk restarted."""
    forwarder.write(records.record(1))
    forwarder.start()
    forwarder.wait()
    forwarder.write(records.record(1, duration=900, billsec=890), records.record(2), records.record(2, billsec=1))
    forwarder.wait()
    once(server, 2)
    assert forwarder.status()["rejected"] == 2
    assert "another record has its uniqueid and sequence" in forwarder.run("rejected").stdout


def test_refused_records_are_kept_and_block_nobody(forwarder, server):
    bad = {
        3: {"clid": b"a\x00b"},
        5: {"uniqueid": "x" * 200},
        8: {"calldate": "yesterday"},
        13: {"calldate": "9" * 30},
        17: {"calldate": str(2**60)},
        9: {"sequence": ""},
        11: {"duration": "99999999999"},
    }
    forwarder.write(*(records.record(number, **bad.get(number, {})) for number in range(700)))
    forwarder.start()
    forwarder.wait()
    once(server, 693)
    assert counts(forwarder) == (0, 7)
    assert forwarder.log.read_text().count("is refused") == 7
    shown = forwarder.run("rejected").stdout.splitlines()
    assert [line.split("\t")[1][:5] for line in shown if "22001" in line or "22003" in line] == ["22001", "22003"]


def test_refused_records_are_tried_again(forwarder, server):
    server.query("ALTER TABLE cdr ADD CONSTRAINT no_seven CHECK (sequence <> 7)")
    forwarder.write(*(records.record(number, clid=b"\xe9" if number == 7 else b"a") for number in range(10)))
    forwarder.start()
    try:
        forwarder.wait()
        once(server, 9)
    finally:
        server.query("ALTER TABLE cdr DROP CONSTRAINT no_seven")
    assert forwarder.run("retry").stdout == "1 records are tried again.\n"
    forwarder.wait()
    once(server, 10)
    assert server.query("SELECT clid FROM cdr WHERE sequence = 7") == [("é",)]


@pytest.mark.parametrize("encoding", ["LATIN9", "UTF8", "MULE_INTERNAL"])
def test_every_byte_of_a_name_arrives(server, tmp_path, encoding):
    names = {
        b"Jos\xc3\xa9": "José",
        b"Jos\xe9": "José",
        "Ana 😀".encode(): "Ana 😀",
        b"\xe9" * 79: "é" * 79,
        b"\xff\x80 \xe9\xc3": "ÿ\x80 éÃ",
    }
    server.query("TRUNCATE cdr")
    made = records.Forwarder(tmp_path, server, encoding=encoding)
    made.prepare()
    written = [
        records.record(number, clid=name, channel=channel)
        for number, (name, channel) in enumerate(
            (name, channel) for name in names for channel in ("PJSIP/1", "PJSIP/\xe9")
        )
    ]
    made.write(*written)
    made.start()
    made.wait()
    # As after a kill between commit and deletion.
    made.write(*written)
    made.wait()
    stored = [name for (name,) in server.query("SELECT clid FROM cdr ORDER BY sequence")]
    assert stored == [name for name in names.values() for _channel in range(2)]
    assert made.status()["rejected"] == 0
    made.stop()


def test_name_of_300_bytes_is_kept_aside(forwarder, server):
    """Asterisk cuts it after 79; whatever else writes to the journal does not block the next record."""
    forwarder.write(records.record(1, clid="x" * 300), records.record(2))
    forwarder.start()
    forwarder.wait()
    once(server, 1)
    assert "22001 value too long" in forwarder.run("rejected").stdout


def test_additional_columns_of_the_table_do_no_harm(forwarder, server):
    server.query("ALTER TABLE cdr ADD COLUMN billed boolean, ADD COLUMN note text NOT NULL DEFAULT ''")
    forwarder.write(records.record(1))
    forwarder.start()
    try:
        forwarder.wait()
        once(server, 1)
    finally:
        server.query("ALTER TABLE cdr DROP COLUMN billed, DROP COLUMN note")


def test_columns_of_every_kind_arrive(tmp_path):
    """Also a keyword of SQL, and a table that has never seen some of the journal's columns."""
    columns = {
        **records.COLUMNS,
        "answer": "int",
        "end": "timestamp",
        "start": "double precision",
        "costcentre": "varchar(40)",
        "group": "int",
    }
    server = records.Server(columns)
    try:
        made = records.Forwarder(tmp_path, server, {**columns, "gone": "int"})
        made.prepare()
        times = {"answer": "1790000003.5", "end": "1790000008.9", "start": "1790000001.25"}
        made.write(
            records.record(1, **times, costcentre="Ventas", group="7 apples", gone="1"),
            records.record(2, answer="0.000000", group="none"),
        )
        made.start()
        made.wait()
        rows = server.query('SELECT answer, "end"::text, start, costcentre, "group" FROM cdr ORDER BY sequence')
        assert rows == [(1790000003, "2026-09-21 14:13:28", 1790000001.25, "Ventas", 7), (None, None, None, "", 0)]
        made.stop()
    finally:
        server.close()


def test_killed_frozen_and_restarted_server_loses_nothing(forwarder, server):
    forwarder.start("m.LONGEST = 1")
    for number in range(0, 1000, 100):
        forwarder.write(*(records.record(one) for one in range(number, number + 100)))
        if number == 200:
            server.kill()
        elif number == 400:
            server.start()
        elif number == 600:
            server.signal(signal.SIGSTOP)
            time.sleep(1)
        elif number == 800:
            server.signal(signal.SIGCONT)
    forwarder.wait()
    once(server, 1000)
    assert "records wait in the journal" in forwarder.log.read_text()
    assert "The database answers again" in forwarder.log.read_text()


def test_frozen_server_is_left_after_the_time_limit(forwarder, server):
    forwarder.start("m.ANSWER = 1; m.LONGEST = 1")
    forwarder.write(records.record(1))
    forwarder.wait()
    server.signal(signal.SIGSTOP)
    try:
        forwarder.write(records.record(2))
        until(lambda: "it did not answer within 1 s" in forwarder.log.read_text())
        assert forwarder.status()["waiting"] == 1
    finally:
        server.signal(signal.SIGCONT)
    forwarder.wait()
    once(server, 2)


def test_missing_table_is_waited_for(forwarder, server):
    forwarder.start("m.LONGEST = 0.5")
    forwarder.write(records.record(0))
    forwarder.wait()
    server.query("ALTER TABLE cdr RENAME TO elsewhere")
    try:
        forwarder.write(records.record(1))
        until(lambda: 'relation "cdr" does not exist' in forwarder.log.read_text())
        assert counts(forwarder) == (1, 0)
    finally:
        server.query("ALTER TABLE elsewhere RENAME TO cdr")
    forwarder.wait()
    once(server, 2)


def test_status_says_what_waits(forwarder):
    assert counts(forwarder) == (0, 0) and forwarder.status()["oldest_seconds"] == 0
    forwarder.write(records.record(1, calldate=time.time() - 1000), records.record(2, calldate=time.time()))
    state = forwarder.status()
    assert state["waiting"] == 2 and 985 <= state["oldest_seconds"] <= 1000 and state["free_megabytes"] > 0


def test_service_warns_of_age_and_space(forwarder, server):
    forwarder.configuration.write_text(
        forwarder.configuration.read_text().replace("warn_megabytes = 1", "warn_megabytes = 999999999")
    )
    forwarder.write(records.record(1, calldate=time.time() - 1000))
    server.signal(signal.SIGSTOP)
    try:
        forwarder.start()
        until(lambda: "MB left" in forwarder.log.read_text())
    finally:
        server.signal(signal.SIGCONT)
    assert "<4>1 call records wait in the journal, the oldest for 99" in forwarder.log.read_text()
    assert forwarder.status_file.stat().st_mode & 0o777 == 0o644


def test_systemd_hears_of_the_service(forwarder, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        forwarder.start()
        heard = [systemd.recv(1000).decode() for _message in range(4)]
    assert heard[0].startswith("STATUS=0 records wait") and heard[1:] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]


def test_journal_is_ready_for_both_users(forwarder):
    assert forwarder.directory.stat().st_mode & 0o7777 == 0o2770
    assert forwarder.path.stat().st_mode & 0o7777 == 0o660
    connection = sqlite3.connect(forwarder.path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert "AUTOINCREMENT" in connection.execute("SELECT sql FROM sqlite_master WHERE name LIKE 'cdr%'").fetchone()[0]
    assert [row[1] for row in connection.execute(f"PRAGMA table_info({forwarder.journal['table']})")] == [
        "AcctId",
        *forwarder.journal["columns"],
    ]
    assert forwarder.prepare() == ""


def test_damaged_journal_is_kept_and_replaced(forwarder, server):
    for number, content in enumerate([b"no database at all, but long enough for a header" * 100, None]):
        if content is None:
            forwarder.write(*(records.record(one) for one in range(200)))
            whole = forwarder.path.read_bytes()
            content = whole[:4096] + b"\xff" * (len(whole) - 4096)
            for suffix in ("-wal", "-shm"):
                forwarder.path.with_name("journal.db" + suffix).unlink(missing_ok=True)
        forwarder.path.write_bytes(content)
        logged = forwarder.prepare()
        assert logged.count("\n") == 1 and "is damaged" in logged
        aside = sorted(forwarder.directory.glob("journal.db.damaged-*"))
        assert aside[-1].read_bytes() == content and len(aside) == number + 1
    forwarder.write(records.record(1))
    forwarder.start()
    forwarder.wait()
    once(server, 1)


def test_read_only_journal_is_put_right(forwarder):
    forwarder.path.chmod(0o440)
    logged = forwarder.prepare()
    assert logged.count("\n") == 1 and "was read-only" in logged
    assert forwarder.path.stat().st_mode & 0o777 == 0o660


def test_files_that_asterisk_has_made_are_left(forwarder):
    """Their mode is that of the journal; in a container the service is not root and cannot change it."""
    code = (
        "import os; real = os.chmod; m.os.geteuid = lambda: 4711\n"
        "m.os.chmod = lambda path, mode: 1 / 0 if 'journal.db' in path else real(path, mode)"
    )
    with contextlib.closing(sqlite3.connect(forwarder.path)) as asterisk:
        asterisk.execute("CREATE TABLE other (a)")
        assert forwarder.path.with_name("journal.db-wal").exists()
        done = forwarder.run("prepare", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_journal_of_other_columns_is_kept_and_forwarded(forwarder, server):
    forwarder.write(records.record(1))
    with sqlite3.connect(forwarder.path) as connection:
        connection.execute(f"ALTER TABLE {forwarder.journal['table']} ADD COLUMN more TEXT")
    connection.close()
    logged = forwarder.prepare()
    assert logged.count("\n") == 1 and "had other columns" in logged
    forwarder.write(records.record(2))
    forwarder.start()
    forwarder.wait()
    until(lambda: not forwarder.status()["waiting"])
    once(server, 2)


def test_new_columns_get_a_table_beside_the_former(forwarder, server, tmp_path):
    """Asterisk goes on writing to the former one until it reads its file again."""
    forwarder.write(records.record(1))
    later = records.Forwarder(tmp_path, server, {**records.COLUMNS, "costcentre": "varchar(40)"})
    assert later.prepare() == ""
    forwarder.write(records.record(2))
    later.write(records.record(3))
    later.start()
    later.wait()
    until(lambda: not later.status()["waiting"])
    later.stop()
    once(server, 3)


def test_replaced_journal_ends_the_service(forwarder):
    forwarder.start()
    until(forwarder.status_file.exists)
    os.rename(forwarder.path, forwarder.directory / "elsewhere")
    assert forwarder.process.wait(timeout=10) == 1
    assert "has been replaced" in forwarder.log.read_text()


def test_missing_journal_is_one_sentence(server, tmp_path):
    made = records.Forwarder(tmp_path, server)
    done = made.run("run")
    assert done.returncode == 1
    assert done.stderr == f"<3>The journal {made.path} is missing.\n"
