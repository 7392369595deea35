"""No call record is lost on its way to PostgreSQL, whatever stops, freezes or is killed."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone, wait
from playbook import play
from sipp import within

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))
import bench_sipp  # noqa: E402

POSTGRESQL = "'postgresql@*-main.service'"
SECONDS = 1  # of each call
# Prints the seconds from the moment that a record is in the journal to the moment that PostgreSQL has it.
WATCH = """
import sqlite3, sys, time
import psycopg2
journal = sqlite3.connect("/var/lib/labredes-cdr/journal.db", isolation_level=None, timeout=10)
tables = journal.execute("SELECT name FROM sqlite_master WHERE name LIKE 'cdr!_%' ESCAPE '!' ORDER BY rowid")
table = tables.fetchall()[-1][0]
server = psycopg2.connect(dbname="asterisk")
server.autocommit = True
cursor, seen, arrived = server.cursor(), {}, {}
cursor.execute("SELECT coalesce(max(id), 0) FROM cdr")
last, end = cursor.fetchone()[0], time.time() + float(sys.argv[1])
while time.time() < end:
    for (key,) in journal.execute("SELECT uniqueid FROM " + table):
        seen.setdefault(key, time.time())
    cursor.execute("SELECT id, uniqueid FROM cdr WHERE id > %s", (last,))
    for last, key in sorted(cursor.fetchall()):
        arrived[key] = time.time()
    time.sleep(0.02)
print(*("%.3f" % (arrived[key] - seen[key]) for key in arrived if key in seen))
"""
# Prints how many records have been in the journal.
WRITTEN = """
import sqlite3
journal = sqlite3.connect("/var/lib/labredes-cdr/journal.db")
print(journal.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()[0])
"""


@pytest.fixture
def calls(lab, on_lab):
    """A function that places calls at a steady rate, and one that counts their records: rows, and distinct calls."""

    def place(count: int, rate: int = 10) -> subprocess.Popen:
        bench_sipp.register(lab, "6002", 300)
        limit = count // rate + SECONDS + 60
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        answer = bench_sipp.command(lab, "6002", "answer", "-m", str(2 * count), "-d", "100", "-timeout", f"{limit}s")
        dial = ["-key", "caller", "6001", "-m", str(count), "-l", str(count), "-r", str(rate)]
        dial += ["-d", str(SECONDS * 1000), "-timeout", f"{limit}s", "-timeout_error"]
        started.append(subprocess.Popen(answer, **quiet))
        started.append(subprocess.Popen(bench_sipp.command(lab, "6001", "uac", *dial, service="6002"), **quiet))
        return started[-1]

    def found() -> tuple[int, int]:
        query = (
            f"SELECT count(*), count(DISTINCT (uniqueid, sequence)) FROM cdr WHERE id > {last}"
            " AND (src, dst, disposition) = ('6001', '6002', 'ANSWERED')"
        )
        rows, distinct = on_lab(f"cd / && sudo -u postgres psql -AtF' ' asterisk -c \"{query}\"").split()
        return int(rows), int(distinct)

    started: list[subprocess.Popen] = []
    last = int(on_lab("cd / && sudo -u postgres psql -Atc 'SELECT coalesce(max(id), 0) FROM cdr' asterisk"))
    yield place, found
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def without_cdr_pgsql(on_lab):
    """Asterisk writes to the journal alone."""
    restart(on_lab, without="cdr_pgsql")
    yield
    restart(on_lab)


def restart(on_lab, without: str = "") -> None:
    """Restart Asterisk without a module. None is unloaded: Asterisk 22.10.1 crashes in a later call."""
    on_lab(
        "cd /etc/asterisk && { test -e modules.whole || cp -p modules.conf modules.whole; } &&"
        + (f" grep -v {without} modules.whole > modules.conf;" if without else " mv modules.whole modules.conf;")
        + " systemctl restart asterisk; asterisk -rx 'core waitfullybooted'",
        seconds=60,
    )


def status(on_lab) -> dict:
    """What waits in the journal."""
    return json.loads(on_lab("labredes-cdr status"))


def arrive(calls, count: int, seconds: float = 60) -> None:
    """Check that every call gets its one record."""
    assert within(seconds, lambda: calls[1]()[1] >= count), calls[1]()
    time.sleep(1.2)  # more than twice as long as the service takes
    assert calls[1]() == (count, count)


def test_journal_is_the_first_to_get_a_record(on_lab):
    shown = on_lab("asterisk -rx 'cdr show status'")
    assert 0 < shown.index("sqlite3") < shown.index("pgsql"), shown
    assert on_lab("stat -c '%U %G %a' /var/lib/labredes-cdr/journal.db").split() == ["labredes-cdr"] * 2 + ["660"]
    assert on_lab("readlink /var/log/asterisk/master.db") == "/var/lib/labredes-cdr/journal.db\n"
    assert "master.db" not in on_lab("ls /var/log/asterisk | grep '~' || true")


def test_stopped_database_loses_no_record(calls, on_lab):
    caller = calls[0](40)
    time.sleep(1.5)
    on_lab(f"systemctl stop {POSTGRESQL}", seconds=60)
    assert caller.wait(timeout=120) == 0
    assert within(20, lambda: status(on_lab)["waiting"] > 0)
    on_lab("systemctl start postgresql", seconds=60)
    arrive(calls, 40)
    assert status(on_lab)["rejected"] == 0


def test_database_that_is_down_when_asterisk_starts_loses_no_record(calls, on_lab):
    on_lab(f"systemctl stop {POSTGRESQL}; systemctl restart asterisk; asterisk -rx 'core waitfullybooted'", seconds=60)
    try:
        assert calls[0](10).wait(timeout=60) == 0
    finally:
        on_lab("systemctl start postgresql", seconds=60)
    arrive(calls, 10)
    on_lab("systemctl restart asterisk; asterisk -rx 'core waitfullybooted'", seconds=60)


def test_killed_database_loses_and_doubles_no_record(calls, on_lab):
    caller = calls[0](40)
    for _kill in range(2):
        time.sleep(1)
        on_lab(f"systemctl kill --signal=KILL {POSTGRESQL}; sleep 0.5; systemctl restart postgresql", seconds=60)
    assert caller.wait(timeout=120) == 0
    arrive(calls, 40)


def test_frozen_database_loses_no_record(calls, on_lab):
    """While it is frozen, all of them are in the journal; no call and no record waits for the server."""
    caller = calls[0](30)
    assert within(10, lambda: calls[1]()[0] > 0)
    on_lab(f"systemctl kill --signal=STOP {POSTGRESQL}")
    try:
        assert caller.wait(timeout=120) == 0
        # The first waits for two seconds; what Asterisk itself wrote is in PostgreSQL alone.
        assert within(6, lambda: status(on_lab)["waiting"] >= 10), status(on_lab)
    finally:
        on_lab(f"systemctl kill --signal=CONT {POSTGRESQL}")
    arrive(calls, 30)


def test_dropped_packets_lose_no_record(calls, on_lab):
    """As between an exchange and a database on another host; no call and no record waits for the server."""
    table = "inet labredes_drop"
    caller = calls[0](30)
    assert within(10, lambda: calls[1]()[0] > 0)
    on_lab(
        f"nft add table {table} && nft add chain {table} sent '{{ type filter hook output priority 0; }}' &&"
        f" nft add rule {table} sent oifname lo tcp dport 5432 drop"
    )
    try:
        assert caller.wait(timeout=120) == 0
        assert within(6, lambda: status(on_lab)["waiting"] >= 10), status(on_lab)
    finally:
        on_lab(f"nft delete table {table}")
    arrive(calls, 30)


def test_killed_forwarder_loses_and_doubles_no_record(calls, on_lab, without_cdr_pgsql):
    caller = calls[0](30)
    for _kill in range(4):
        on_lab("systemctl kill --signal=KILL labredes-cdr || true")
        time.sleep(0.7)
    assert caller.wait(timeout=120) == 0
    arrive(calls, 30)


def test_killed_asterisk_loses_the_calls_in_progress_alone(calls, on_lab):
    count = "asterisk -rx 'core show channels count'"
    before = re.search(r"(\d+) calls? processed", on_lab(count))
    caller = calls[0](30)
    time.sleep(2.2)
    shown = on_lab(f"{count}; systemctl kill --signal=KILL asterisk")
    time.sleep(3)
    records = calls[1]()
    caller.kill()
    active = int(re.search(r"(\d+) active calls?", shown)[1])
    ended = int(re.search(r"(\d+) calls? processed", shown)[1]) - int(before[1]) - active
    print(f"{active} calls in progress, {ended} had ended before, {records[0]} records")
    assert records[0] == records[1] >= ended > 0
    assert within(30, lambda: "fully booted" in on_lab("asterisk -rx 'core waitfullybooted' || true"))


def test_record_is_there_within_two_seconds(calls, on_lab, without_cdr_pgsql):
    on_lab(f"cat > /var/tmp/watch-records.py <<'END'\n{WATCH}\nEND\ngpasswd --add postgres labredes-cdr")
    try:
        caller = calls[0](50)
        watched = on_lab("cd / && sudo -u postgres python3 /var/tmp/watch-records.py 9", seconds=60)
        assert caller.wait(timeout=120) == 0
    finally:
        on_lab("gpasswd --delete postgres labredes-cdr; rm /var/tmp/watch-records.py")
    delays = sorted(float(word) for word in watched.split())
    print(f"{len(delays)} records, median {statistics.median(delays)} s, longest {delays[-1]} s")
    assert len(delays) >= 45
    assert delays[int(len(delays) * 0.99)] < 2


def test_calls_are_not_slowed(lab, on_lab):
    """The median of the time until a call is answered, with the journal and without; a busy machine may try again."""
    lines = [Connection("udp", (lab["host"], lab["sip"]["udp"]), 5) for _end in range(2)]
    caller, callee = phones = [
        Phone(number, (number, lab["phones"][number]["password"]), line)
        for number, line in zip(("6001", "6002"), lines, strict=True)
    ]

    def setup_time(without: str) -> float:
        restart(on_lab, without)
        asked = callee.register()
        assert wait(phones, lambda: asked.final and asked.final.status == 200, 20)
        seconds = []
        for _call in range(20):
            dialled = caller.dial("6002")
            assert wait(phones, lambda: callee.incoming, 10)
            callee.answer()
            assert wait(phones, lambda dialled=dialled: dialled.final, 10)
            seconds.append(dialled.seconds)
            assert wait(phones, lambda: callee.call.confirmed, 10)
            caller.hang_up()
            assert wait(phones, lambda: callee.call.ended, 10)
            time.sleep(0.1)  # the record of a call is written after it, not during the next one
        return statistics.median(seconds) * 1000

    try:
        for _attempt in range(3):
            without, with_journal = setup_time("cdr_sqlite3_custom"), setup_time("")
            print(f"setup {with_journal:.1f} ms with the journal, {without:.1f} ms without")
            if with_journal <= 1.25 * without + 5:
                return
        pytest.fail("calls are slower with the journal")
    finally:
        restart(on_lab)
        for line in lines:
            line.close()


def test_damaged_journal_is_replaced_while_asterisk_runs(calls, on_lab, without_cdr_pgsql):
    began = on_lab("date +%s").strip()
    on_lab(
        "systemctl stop labredes-cdr; cd /var/lib/labredes-cdr && rm -f journal.db-wal journal.db-shm;"
        " dd if=/dev/urandom of=journal.db bs=1k count=16 2>&1; systemctl start labredes-cdr"
    )
    assert on_lab("ls /var/lib/labredes-cdr | grep -c damaged") == "1\n"

    def said(sentence: str) -> bool:
        return sentence in on_lab(f"journalctl --unit=labredes-cdr --since=@{began} --output=cat")

    assert said("is damaged")
    assert within(30, lambda: said("Asterisk has opened the journal") or said("restart asterisk.service"))
    if not said("Asterisk has opened the journal"):  # Before 20.19 and 22.9 a reload does not open the new one.
        on_lab("systemctl restart asterisk; asterisk -rx 'core waitfullybooted'", seconds=60)
    assert calls[0](10).wait(timeout=60) == 0
    arrive(calls, 10)
    on_lab("rm /var/lib/labredes-cdr/*damaged*")


def test_full_disk_of_the_journal_ends_no_call(calls, on_lab):
    """Records reach PostgreSQL from Asterisk itself, and by the journal again once there is space."""
    place = "/var/lib/labredes-cdr"
    stop, start = "systemctl stop asterisk labredes-cdr", "systemctl start labredes-cdr asterisk"
    on_lab(f"{stop}; mount -t tmpfs -o size=1m tmpfs {place}; {start}; asterisk -rx 'core waitfullybooted'", seconds=60)
    try:
        on_lab(f"dd if=/dev/zero of={place}/fill bs=4k 2>/dev/null || true")
        caller = calls[0](30)
        assert within(10, lambda: calls[1]()[0] > 0)
        on_lab(f"rm {place}/fill")
        assert caller.wait(timeout=60) == 0
        arrive(calls, 30)
        assert 5 <= int(on_lab(f"python3 -c '{WRITTEN}'")) < 30
    finally:
        on_lab(f"{stop}; umount {place}; {start}; asterisk -rx 'core waitfullybooted'", seconds=60)


def test_changed_file_is_put_right_and_check_mode_is_truthful(lab_directory, on_lab):
    on_lab("sed -i s/^warn_seconds.*/warn_seconds=1/ /etc/labredes-cdr/cdr.conf")
    for more, changed in (["--check"], "changed=2"), ([], "changed=2"):
        done = play(lab_directory, "--tags=cdr", *more, playbook="site.yml")
        assert done.returncode == 0 and changed in done.stdout, done.stdout[-3000:]
