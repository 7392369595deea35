"""A PostgreSQL server, a journal and the forwarder between them, for the tests of call records."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg2
import rendering
from ansible_collections.labredes.pbx.plugins.filter.cdr_journal import cdr_journal, cel_journal

FILES = rendering.ROLES / "postgresql/files"
FORWARDER = rendering.ROLES / "cdr/files/labredes_cdr.py"
COLUMNS = rendering.defaults("labredes")["labredes_cdr_columns"]
JOURNAL = cdr_journal(COLUMNS)
EVENTS = cel_journal("cel")
BEGIN = 1_790_000_000  # a second since 1970


class Server:
    """A PostgreSQL server of its own, with the table of the role, on a port of this machine."""

    def __init__(self, columns: dict | None = None):
        self.directory = Path(tempfile.mkdtemp(prefix="postgresql-"))
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self.binaries = binaries[-1]
        # It refuses to run as root.
        self.user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if self.user:
            os.chown(self.directory, pwd.getpwnam("postgres").pw_uid, -1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen | None = None
        self.call("initdb", "-A", "trust", "-U", "asterisk", "-E", "UTF8", "--locale=C", "-N")
        self.start()
        with contextlib.closing(self.connect("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute("CREATE DATABASE asterisk")
        wanted = {
            "table": "cdr",
            "owner": "asterisk",
            "reader": "",
            "columns": json.dumps(columns or COLUMNS),
            "repair": (FILES / "repair_text.sql").read_text(),
            "calls": (FILES / "calls.sql").read_text(),
            "events": json.dumps(EVENTS["types"]),
        }
        for name in ("cdr_table.sql", "cel_table.sql"):
            for (statement,) in self.query((FILES / name).read_text(), wanted):
                self.query(statement)

    def call(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs on its directory."""
        command = [self.binaries / program, "-D", self.directory / "data", *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self.user)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        command = [self.binaries / "postgres", "-D", self.directory / "data"]
        command += [f"--{name}={value}" for name, value in options.items()]
        deadline = time.monotonic() + 60
        while True:
            self.process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **self.user
            )
            while self.process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(psycopg2.OperationalError):
                    self.connect("postgres").close()
                    return
                time.sleep(0.05)
            # The processes of one that was killed may still be there.
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.1)

    def signal(self, number: int) -> None:
        """Send a signal to the server and to each of its processes."""
        children = subprocess.run(
            ["pgrep", "--parent", str(self.process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        for process in [self.process.pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self) -> None:
        """Kill the server, as a power cut would."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def connect(self, database: str = "asterisk"):
        """A connection of psycopg2."""
        return psycopg2.connect(host="127.0.0.1", port=self.port, user="asterisk", dbname=database, connect_timeout=5)

    def query(self, statement: str, values=None) -> list[tuple]:
        """Run a statement and commit; returns its rows."""
        with contextlib.closing(self.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """Stop the server and remove what it has."""
        self.kill()
        shutil.rmtree(self.directory)


class Forwarder:
    """The journal and the program that forwards it, in a directory."""

    def __init__(self, directory: Path, server: Server, columns: dict | None = None, encoding: str = "LATIN9"):
        self.directory, self.journal = directory / "journal", cdr_journal(columns or COLUMNS)
        self.path, self.status_file = self.directory / "journal.db", directory / "status.json"
        self.configuration = directory / "cdr.conf"
        owner = pwd.getpwuid(os.geteuid()).pw_name
        self.configuration.write_text(
            f"[journal]\ndirectory = {self.directory}\ntable = {self.journal['table']}\n"
            f"columns = {' '.join(self.journal['columns'])}\nowner = {owner}\n"
            f"[events]\ntable = {EVENTS['table']}\ncolumns = {' '.join(EVENTS['columns'])}\n"
            f"[forwarder]\nencoding = {encoding}\nwarn_seconds = 300\nwarn_megabytes = 1\n"
            f"[database]\nhost = 127.0.0.1\nport = {server.port}\ndbname = asterisk\nuser = asterisk\n"
            "sslmode = disable\ntable = cdr\n"
        )
        self.process: subprocess.Popen | None = None
        self.log = directory / "log"

    def command(self, name: str, code: str = "") -> list[str]:
        """The command line of one of the program's commands; code runs first, with the program as `m`."""
        start = f"import sys; sys.path.insert(0, {str(FORWARDER.parent)!r}); import labredes_cdr as m\n{code}\n"
        arguments = [name, f"--config={self.configuration}", f"--status={self.status_file}"]
        return [sys.executable, "-c", f"{start}sys.exit(m.main(sys.argv[1:]))", *arguments]

    def run(self, name: str, code: str = "", timeout: float = 60) -> subprocess.CompletedProcess:
        """Run a command to its end."""
        return subprocess.run(self.command(name, code), capture_output=True, text=True, timeout=timeout, check=False)

    def prepare(self) -> str:
        """Make or repair the journal; returns what is logged."""
        done = self.run("prepare")
        assert done.returncode == 0, done.stderr
        return done.stderr

    def start(self, code: str = "") -> None:
        """Start the service, with shorter waits than on a host."""
        code = f"m.POLL = 0.05; m.REPORT = 0.3\n{code}"
        with self.log.open("a") as stream:
            self.process = subprocess.Popen(self.command("run", code), stderr=stream)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the service; returns its exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code, self.process = self.process.wait(timeout=60), None
        return code

    def write(self, *records: dict, journal: dict | None = None) -> None:
        """Write records as Asterisk does, by the position of the columns; many in one transaction, to save time."""
        journal = journal or self.journal
        with contextlib.closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as connection:
            places = ",".join("CAST(? AS TEXT)" for _name in journal["columns"])
            connection.execute("BEGIN IMMEDIATE")
            for values in records:
                row = [as_bytes(values.get(name, b"")) for name in journal["columns"]]
                connection.execute(f'INSERT INTO "{journal["table"]}" VALUES (NULL, {places})', row)
            connection.execute("COMMIT")

    def status(self) -> dict:
        """What waits, as the program says."""
        return json.loads(self.run("status").stdout)

    def wait(self, seconds: float = 60) -> None:
        """Wait until nothing waits in the journal."""
        deadline = time.monotonic() + seconds
        with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as connection:
            tables = self.journal["table"], EVENTS["table"]
            while any(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables):
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)


def as_bytes(value) -> bytes:
    """A value as bytes."""
    return value if isinstance(value, bytes) else str(value).encode()


def record(number: int, **more) -> dict:
    """A call's record."""
    return {
        "calldate": f"{BEGIN + number}.250000",
        "clid": '"Ana Ruiz" <6001>',
        "src": "6001",
        "dst": "6002",
        "dcontext": "from-internal",
        "channel": f"PJSIP/6001-{number:08x}",
        "dstchannel": f"PJSIP/6002-{number:08x}",
        "lastapp": "Dial",
        "duration": 7,
        "billsec": 5,
        "disposition": "ANSWERED",
        "amaflags": 3,
        "uniqueid": f"pbx1-{BEGIN + number}.{number}",
        "linkedid": f"pbx1-{BEGIN + number}.{number}",
        "sequence": number,
        **more,
    }


def until(holds, seconds: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
