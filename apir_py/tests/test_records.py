"""Call records, out of a PostgreSQL server of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import aiohttp
import psycopg2
import pytest
from apir_py.config import Database, User
from apir_py.event import Filter
from apir_py.records import Records, Search, literal, pattern
from fake_ami import until
from running_service import cheap_hash
from test_service import running

# The table as roles/postgresql makes it.
TABLE = """
CREATE TABLE cdr (
  calldate timestamp, clid varchar(80) NOT NULL DEFAULT '', src varchar(80) NOT NULL DEFAULT '',
  dst varchar(80) NOT NULL DEFAULT '', dcontext varchar(80) NOT NULL DEFAULT '',
  channel varchar(80) NOT NULL DEFAULT '', dstchannel varchar(80) NOT NULL DEFAULT '',
  lastapp varchar(80) NOT NULL DEFAULT '', lastdata varchar(80) NOT NULL DEFAULT '', duration int, billsec int,
  disposition varchar(45) NOT NULL DEFAULT '', amaflags int, accountcode varchar(80) NOT NULL DEFAULT '',
  uniqueid varchar(150) NOT NULL DEFAULT '', userfield varchar(255) NOT NULL DEFAULT '',
  peeraccount varchar(80) NOT NULL DEFAULT '', linkedid varchar(150) NOT NULL DEFAULT '', sequence int,
  id bigserial PRIMARY KEY);
CREATE UNIQUE INDEX ON cdr (uniqueid, sequence);
CREATE INDEX ON cdr (calldate);
CREATE TABLE many (LIKE cdr INCLUDING ALL);
INSERT INTO many (calldate, src, dst, channel, dstchannel, duration, billsec, disposition, uniqueid, sequence)
  SELECT '2026-01-01'::timestamp + n * interval '5 minutes', 6000 + n % 100, 7000 + n % 1000,
    'PJSIP/' || 6000 + n % 100 || '-' || n, 'PJSIP/' || 7000 + n % 1000 || '-' || n, 10, 5, 'ANSWERED', n::text, n
  FROM generate_series(1, 100000) AS n;
CREATE ROLE events LOGIN PASSWORD 's3cret';
GRANT SELECT ON cdr, many TO events;
"""


class Postgres:
    """A server with the table, on a free port, run by a user who may."""

    def __init__(self, directory: Path) -> None:
        """Create it; nothing runs yet."""
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        assert programs, "these tests need PostgreSQL: apt-get install postgresql"
        self.programs, self.directory = programs[-1], directory
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        if not os.getuid():
            shutil.chown(directory, "postgres", "postgres")
        self.run("initdb", "--auth-host=scram-sha-256", "--encoding=UTF8", "--no-sync", "--username=owner")

    def run(self, program: str, *options: str) -> None:
        """Run one of PostgreSQL's programs on the server."""
        command = [str(self.programs / program), "-D", str(self.directory / "data"), *options]
        if not os.getuid():
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.directory)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run("pg_ctl", "start", "-w", "-l", str(self.directory / "log"), "-o", options)

    def stop(self) -> None:
        """Stop it as a crash does."""
        self.run("pg_ctl", "stop", "-w", "-m", "immediate")

    def connect(self):
        """A connection of the owner's."""
        connection = psycopg2.connect(host=str(self.directory), port=self.port, user="owner", dbname="postgres")
        connection.autocommit = True
        return connection

    def execute(self, statement: str, *parameters: object) -> None:
        """Run a statement as the owner."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)

    def add(self, **columns: object) -> None:
        """Add a record."""
        names = ", ".join(columns)
        self.execute(f"INSERT INTO cdr ({names}) VALUES ({', '.join(['%s'] * len(columns))})", *columns.values())

    def database(self, **changes: object) -> Database:
        """What the service has to know."""
        known = {"name": "postgres", "user": "events", "password": "s3cret", "table": "cdr", "sslmode": "prefer"}
        return Database(**{"host": "127.0.0.1", "port": self.port, **known, **changes})


@pytest.fixture(scope="module")
def server():
    """A running server."""
    directory = Path(tempfile.mkdtemp(prefix="apir_py-postgres-"))
    server = Postgres(directory)
    server.start()
    server.execute(TABLE)
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def table(server):
    """The server with an empty table."""
    server.execute("TRUNCATE cdr RESTART IDENTITY")
    return server


@contextlib.asynccontextmanager
async def records(certificate, server, **options):
    """The service with records, and ana logged in."""
    known = {"database": server.database(), "names": {"6001": "Ana Ruiz", "8001": "Cola 1"}}
    async with running(certificate, **{**known, **options}) as (_, service):
        assert await service.login() == 200
        yield service


async def found(service, query=""):
    """What `/records` gives, which has to be 200."""
    status, text = await service.get(f"/records{query}")
    assert status == 200, text
    return json.loads(text)


async def sources(service, query=""):
    """The callers in it, in order."""
    return [record["caller"]["number"] for record in (await found(service, query))["records"]]


def seen_by(**filters):
    """Users, of whom ana sees that much."""
    return {"ana": User(cheap_hash("right"), Filter(**filters))}


async def test_record_has_the_form_of_the_readme(certificate, table):
    table.add(
        calldate="2026-01-31 08:15:00",
        clid='"Luis \\"el rápido\\" <b>" <600111222>',
        src="600111222",
        dst="8001",
        channel="PJSIP/provider-0000001a",
        dstchannel="PJSIP/6001-0000001b",
        lastapp="Queue",
        lastdata="ColaUno,tT,,,60",
        duration=75,
        billsec=60,
        disposition="ANSWERED",
        uniqueid="pbx-1769847300.26",
    )
    table.add(calldate="2026-01-31 08:16:00", src="6001", dst="*21", clid='"Other" <6001>', disposition="NO ANSWER")
    async with records(certificate, table) as service:
        answer = await found(service)
    assert answer == {
        "records": [
            {
                "id": "2",
                "at": "2026-01-31T08:16:00.000Z",
                "caller": {"number": "6001", "name": "Ana Ruiz"},
                "callee": {"number": "*21", "name": ""},
                "seconds": None,
                "talk_seconds": None,
                "disposition": "NO ANSWER",
                "queue": None,
                "uniqueid": "",
                "channel": "",
            },
            {
                "id": "1",
                "at": "2026-01-31T08:15:00.000Z",
                "caller": {"number": "600111222", "name": 'Luis \\"el rápido\\" <b>'},
                "callee": {"number": "8001", "name": "Cola 1"},
                "seconds": 75,
                "talk_seconds": 60,
                "disposition": "ANSWERED",
                "queue": "ColaUno",
                "uniqueid": "pbx-1769847300.26",
                "channel": "PJSIP/provider-0000001a",
            },
        ],
        "page": 1,
        "size": 50,
        "more": False,
    }


async def test_number_is_found_as_a_whole(certificate, table):
    table.add(calldate="2026-01-08", src="1", dst="6001")
    table.add(calldate="2026-01-07", src="6001")
    table.add(calldate="2026-01-06", src="3", channel="PJSIP/6001-0000001a")
    table.add(calldate="2026-01-05", src="4", dstchannel="Local/6001@phones-0000001a;1")
    for number in ("16001", "60011", "+6001", "6001*"):
        table.add(calldate="2026-01-01", src=number, channel=f"PJSIP/{number}-0000001a")
    table.add(calldate="2026-01-01", src="5", channel="PJSIP/provider-6001", dstchannel="PJSIP/1/6001")
    async with records(certificate, table) as service:
        assert await sources(service, "?number=6001") == ["1", "6001", "3", "4"]
        assert await sources(service, "?number=%2B6001") == ["+6001"]
        assert await sources(service, "?number=6001*") == ["6001*"]
        assert await sources(service, "?number=600") == []


async def test_dates_are_local_and_include_the_last_day(certificate, table, monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Madrid")
    time.tzset()
    try:
        for number, at in enumerate(("30 22:59:59", "30 23:00:00", "31 12:00:00", "31 22:59:59", "31 23:00:00")):
            table.add(calldate=f"2026-01-{at}", src=str(number))
        async with records(certificate, table) as service:
            assert await sources(service, "?from=2026-01-31&to=2026-01-31") == ["3", "2", "1"]
            assert await sources(service, "?from=2026-01-31T12:00Z") == ["4", "3", "2"]
            assert await sources(service, "?to=2026-01-31T13:00:00%2B01:00") == ["2", "1", "0"]
            assert await sources(service, "?to=2026-01-31%2013:00") == ["2", "1", "0"]
            assert await sources(service, "?from=2026-02-01&to=2026-01-01") == []
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_pages_hold_each_record_once(certificate, table):
    for number in range(7):
        table.add(calldate="2026-01-01", src=str(number))
    async with records(certificate, table) as service:
        pages = [await found(service, f"?size=3&page={page}") for page in (1, 2, 3, 4)]
    assert [[record["id"] for record in page["records"]] for page in pages] == [list("765"), list("432"), ["1"], []]
    assert [page["more"] for page in pages] == [True, True, False, False]


WRONG = [
    "number=6001'%20OR%201=1",
    "number=%27;DROP%20TABLE%20cdr;--",
    "number=6001%00",
    "number=%D9%A1",
    "number=%25",
    "number=" + "1" * 33,
    "number=ana",
    "from=yesterday",
    "from=2026-02-30",
    "from=2026-01-01';DELETE%20FROM%20cdr;--",
    "from=2026-01-01T25:00",
    "from=0000-01-01",
    "to=9999-12-31",
    "to=2026-01-01)%20UNION%20SELECT%20usename,passwd%20FROM%20pg_shadow--",
    "to=2026-W01-1",
    "page=0",
    "page=1001",
    "page=-1",
    "page=1;SELECT%20pg_sleep(9)",
    "page=%D9%A1",
    "size=201",
    "size=0",
    "size=1e2",
    "sort=src",
]


@pytest.mark.parametrize("query", WRONG)
async def test_wrong_search_is_refused_in_one_sentence(certificate, table, query):
    table.add(calldate="2026-01-01", src="6001")
    async with records(certificate, table) as service:
        for path in ("/records", "/records.csv"):
            status, text = await service.get(f"{path}?{query}")
            assert status == 400
            assert json.loads(text)["error"].startswith((query.split("=")[0], "there is no parameter 'sort'; there"))
        assert await sources(service) == ["6001"]


async def test_records_need_a_login_and_the_right_origin(certificate, table):
    async with running(certificate, database=table.database()) as (_, service):
        for path in ("/records", "/records.csv"):
            assert (await service.get(path))[0] == 401
        assert await service.login() == 200
        for path in ("/records", "/records.csv"):
            assert (await service.get(path, Origin="https://evil.example.com"))[0] == 403
            async with service.http.head(service.url + path) as response:
                assert response.status == 405
        assert '"records": true' in (await service.get("/session"))[1]


async def test_service_without_a_database_says_so(certificate):
    async with running(certificate) as (_, service):
        assert await service.login() == 200
        assert await service.get("/records") == (404, '{"error": "this service has no call records"}')
        assert '"records": false' in (await service.get("/session"))[1]


RECORDS = {
    "a": ("6001", "PJSIP/6001-1"),
    "b": ("7", "PJSIP/6002-1"),
    "c": ("6%1", "PJSIP/x-1"),
    "d": ("8", "Local/1@x"),
}


@pytest.mark.parametrize(
    ("filters", "seen"),
    [
        ({}, "dcba"),
        ({"events": ["Queue*", "cdr"]}, "dcba"),
        ({"numbers": ["6001", "6002"]}, "ba"),
        ({"numbers": ["6%1"]}, "c"),
        ({"numbers": ["%", "' OR true --"]}, ""),
        ({"channels": ["pjsip/600"]}, "ba"),
        ({"channels": ["*/1@?"]}, "d"),
        ({"channels": ["PJSIP/6001-?"]}, "a"),
        ({"channels": ["PJSIP/600_"]}, ""),
        ({"channels": ["%"]}, ""),
        ({"channels": ["PJSIP/6*"], "numbers": ["7", "8"]}, "b"),
    ],
)
async def test_user_sees_his_records_alone(certificate, table, filters, seen):
    for day, (name, (number, channel)) in enumerate(RECORDS.items(), 1):
        table.add(calldate=f"2026-01-0{day}", uniqueid=name, src=number, channel=channel)
    async with records(certificate, table, users=seen_by(**filters)) as service:
        assert "".join(record["uniqueid"] for record in (await found(service))["records"]) == seen
        rows = list(csv.DictReader(io.StringIO((await service.get("/records.csv"))[1])))
        assert "".join(row["uniqueid"] for row in rows) == seen
        asked = await found(service, "?number=6001")
        assert "".join(record["uniqueid"] for record in asked["records"]) == ("a" if "a" in seen else "")


async def test_user_who_sees_no_such_event_gets_no_records(certificate, table):
    async with records(certificate, table, users=seen_by(events=["Queue*"])) as service:
        for path in ("/records", "/records.csv"):
            assert await service.get(path) == (403, '{"error": "call records are not for this user"}')
        assert '"records": false' in (await service.get("/session"))[1]


HOSTILE = [
    "=1+1",
    "+34600",
    "-2",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "  =cmd|' /C calc'!A0",
    "＝1",
    '"quoted", and, divided',
    "two\nlines",
    "<script>alert(1)</script>",
    "Recepción 📞",
]


async def test_csv_keeps_hostile_names_and_defuses_formulas(certificate, table):
    for name in HOSTILE:
        table.add(calldate="2026-01-01", clid=f'"{name}" <600>', src="600", dst=name, channel=name, disposition=name)
    async with records(certificate, table) as service, service.http.get(service.url + "/records.csv") as response:
        body = await response.read()
        assert response.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert response.headers["Content-Disposition"] == 'attachment; filename="records.csv"'
        assert response.headers["Cache-Control"] == "no-store"
    assert body.startswith(
        b"\xef\xbb\xbfat,caller,caller_name,callee,callee_name,seconds,talk_seconds,disposition,queue"
    )
    rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline="")))
    expected = [*(f"'{name}" for name in HOSTILE[:8]), *HOSTILE[8:]]
    for column in ("caller_name", "callee", "disposition", "channel"):
        assert [row[column] for row in reversed(rows)] == expected
    assert {(row["at"], row["seconds"], row["queue"]) for row in rows} == {("2026-01-01T00:00:00.000Z", "", "")}


async def test_100000_records_are_searched_in_time(certificate, server):
    async with records(certificate, server, database=server.database(table="many")) as service:
        assert (await found(service))["records"][0]["id"] == "100000"
        for query in ("?number=6042", "?page=1000&size=100", "?from=2026-03-01&to=2026-03-02", "?number=99999"):
            started = time.perf_counter()
            await found(service, query)
            assert time.perf_counter() - started < 2


async def test_100000_records_in_a_file_delay_nobody(certificate, server):
    async with records(certificate, server, database=server.database(table="many")) as service:
        delays = []
        reading = asyncio.ensure_future(service.get("/records.csv"))
        while not reading.done():
            started = time.perf_counter()
            assert (await service.get("/healthz"))[0] == 200
            delays.append(time.perf_counter() - started)
            await asyncio.sleep(0.1)
        status, text = await reading
        assert (status, text.count("\n")) == (200, 100_001)
        assert sorted(delays)[len(delays) // 2] < 0.2


async def test_third_search_at_once_is_refused(certificate, table):
    async with records(certificate, table) as service:
        with contextlib.closing(table.connect()) as owner, owner.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE cdr IN ACCESS EXCLUSIVE MODE")
            waiting = [asyncio.ensure_future(service.get("/records")) for _ in range(2)]
            await until(lambda: service.service.calls.busy == 2)
            status, text = await service.get("/records.csv")
            assert (status, json.loads(text)["error"]) == (
                429,
                "call records are being searched, try again in a moment",
            )
            cursor.execute("COMMIT")
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]
        assert (await service.get("/records"))[0] == 200


async def test_slow_search_is_ended_and_said(certificate, table, monkeypatch):
    monkeypatch.setattr("apir_py.records.STATEMENT_SECONDS", 1)
    async with records(certificate, table) as service:
        with contextlib.closing(table.connect()) as owner, owner.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE cdr IN ACCESS EXCLUSIVE MODE")
            for path in ("/records", "/records.csv"):
                status, text = await service.get(path)
                assert status == 503
                assert json.loads(text)["error"] == "the search took longer than 1 s; ask for fewer days"
        assert await found(service)


async def test_database_that_stops_and_starts_is_noticed(certificate, table):
    table.add(calldate="2026-01-01", src="6001")
    async with records(certificate, table) as service:
        assert await sources(service) == ["6001"]
        table.stop()
        try:
            started = time.perf_counter()
            for path in ("/records", "/records.csv", "/records"):
                status, text = await service.get(path)
                assert status == 503
                assert "error" in json.loads(text)
            assert time.perf_counter() - started < 2
            assert (await service.get("/healthz"))[0] == 200
            assert "it is tried again soon" in text
        finally:
            table.start()
        service.service.calls.next_attempt = 0
        assert await sources(service) == ["6001"]
        table.stop()
        table.start()
        assert await sources(service) == ["6001"], "a connection that has ended is not tried again at once"


async def test_file_breaks_off_when_the_database_is_killed(certificate, server):
    async with records(certificate, server, database=server.database(table="many")) as service:
        async with service.http.get(service.url + "/records.csv") as response:
            assert response.status == 200
            await response.content.readexactly(1000)
            server.stop()
            try:
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
            finally:
                server.start()
        await until(lambda: not service.service.calls.busy)
        service.service.calls.next_attempt = 0
        assert (await service.get("/records"))[0] == 200


async def test_database_that_hangs_is_given_up(certificate, table, monkeypatch):
    monkeypatch.setattr("apir_py.records.HANGS_AFTER", 0.5)
    async with records(certificate, table) as service:
        await found(service)
        backend = service.service.calls.connection.get_backend_pid()
        os.kill(backend, signal.SIGSTOP)
        try:
            asking = asyncio.ensure_future(service.get("/records"))
            await asyncio.sleep(0.1)
            assert (await service.get("/healthz"))[0] == 200
            status, text = await asking
            assert (status, json.loads(text)["error"]) == (503, "the database of the call records does not answer")
            await until(service.service.calls.hanging.done)
            assert (await service.get("/records"))[0] == 200, "another connection is not tried"
        finally:
            os.kill(backend, signal.SIGCONT)


async def test_client_that_does_not_read_is_cut_off(certificate, server, monkeypatch):
    monkeypatch.setattr("apir_py.records.READ_WITHIN", 0.3)
    async with records(certificate, server, database=server.database(table="many")) as service:
        response = await service.http.get(service.url + "/records.csv")
        response.connection.transport.pause_reading()
        await until(lambda: not service.service.calls.busy, 8)
        with contextlib.closing(server.connect()) as owner, owner.cursor() as cursor:
            for _ in range(50):
                await asyncio.sleep(0.02)
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'events'")
                (left,) = cursor.fetchone()
                if not left:
                    break
            assert not left
        response.close()


@pytest.mark.parametrize("change", [{"password": "wrong"}, {"table": "missing"}, {"name": "missing"}])
async def test_wrong_configuration_is_in_the_log(certificate, table, change, caplog):
    async with records(certificate, table, database=table.database(**change)) as service:
        status, text = await service.get("/records")
        assert status == 503
        assert json.loads(text)["error"] == "the call records cannot be read; the log of the service says why"
    assert "s3cret" not in caplog.text
    assert any(word in caplog.text for word in ("password authentication failed", "does not exist"))


def test_connection_cannot_write(table):
    calls = Records(table.database(host=str(table.directory), user="owner"), {})
    with contextlib.closing(calls.connect()) as connection, pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        connection.cursor().execute("DELETE FROM cdr")
    calls.close()


def test_patterns_of_a_filter_are_patterns_of_like():
    assert literal(r"6\%_") == r"6\\\%\_"
    assert [pattern(text) for text in ("PJSIP/6001", "PJSIP/60??-*", "50%_")] == [
        "PJSIP/6001%",
        "PJSIP/60__-%",
        r"50\%\_%",
    ]


def test_search_without_parameters_asks_for_all():
    assert Search.of({"number": "", "from": "", "to": "", "page": "", "size": ""}) == Search()
