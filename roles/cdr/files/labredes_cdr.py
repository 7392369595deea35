#!/usr/bin/python3
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Moves call records and channel events from the journal, which Asterisk writes, to PostgreSQL, each exactly once.

A batch is read from the journal, inserted where its key is not in the table yet, committed, and only then deleted from
the journal. So whatever is killed in between, a record is inserted again and found to be there. Runs on Python 3.6.
"""

import argparse
import configparser
import itertools
import json
import os
import re
import select
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import traceback
from contextlib import closing, suppress
from threading import Thread

try:
    import psycopg2
    from psycopg2 import extensions
except ImportError:
    psycopg2 = None

CONFIGURATION = "/etc/labredes-cdr/cdr.conf"
STATUS = "/run/labredes-cdr/status.json"
ASTERISK = "/usr/sbin/asterisk"
ASTERISK_FILES = {"cdr": "/etc/asterisk/cdr_sqlite3_custom.conf", "cel": "/etc/asterisk/cel_sqlite3_custom.conf"}
BATCH = 500  # records in one transaction
POLL = 0.5  # seconds between two looks into the journal
LONGEST = 30  # seconds between two attempts to reach the database
ANSWER = 15  # seconds that the database may take for one answer
BUSY = 10  # seconds that Asterisk may hold the lock of the journal
HELD = 2  # seconds that the database may hold up Asterisk itself
REPORT = 2  # seconds between two reports of what waits
REPEAT = 600  # seconds until a warning is repeated
TIMES = ("calldate", "start", "answer", "end", "eventtime")
EVENT_TIME = "YYYY-MM-DD HH24:MI:SS.US"  # an event's time is a part of its key, in microseconds
# The kinds of records, by what the names of their tables in the journal begin with, in the order of their importance:
# the key with each part as text in SQL, and what tells two records of the same key apart, nothing that an administrator
# would edit afterwards.
KEYS = {
    "cdr": {"uniqueid": "{}", "sequence": "{}::text"},
    "cel": {"uniqueid": "{}", "eventtime": "to_char({}, '" + EVENT_TIME + "')", "eventtype": "{}"},
}
COMPARED = {
    "cdr": ("calldate", "channel", "duration", "billsec", "disposition"),
    "cel": ("channame", "appname", "appdata", "peer", "extra"),
}
# Data exceptions, violated constraints, and errors that a trigger raises: the fault of one record.
REFUSED = ("22", "23", "P0")
ERROR, WARNING, NOTICE = "<3>", "<4>", "<5>"  # priorities


class JournalError(Exception):
    """What is wrong with the journal, as one sentence without its full stop."""


def log(level, sentence):
    """Write a line to the host's journal; its prefix is the priority."""
    print(level + sentence + ".", file=sys.stderr, flush=True)


def notify(state):
    """Send a state to systemd, where it has started this."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)) as sender:
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.sendall(state.encode())


def reason(problem):
    """A one-line reason of an exception."""
    return (" ".join(str(problem).split()) or type(problem).__name__).rstrip(".")


def quoted(name):
    """A name as an identifier of SQLite."""
    return '"' + name.replace('"', '""') + '"'


class Journal:
    """The file that Asterisk writes; configuration: its section [journal], and for channel events [events]."""

    def __init__(self, configuration):
        settings = configuration["journal"]
        self.directory = settings["directory"]
        self.path = os.path.join(self.directory, "journal.db")
        # The table that Asterisk writes, and its columns, by kind.
        self.written = {
            kind: (configuration[section]["table"], configuration[section]["columns"].split())
            for kind, section in (("cdr", "journal"), ("cel", "events"))
            if section in configuration
        }
        self.owner = settings["owner"]
        self.connection = None
        self.opened = None

    def open(self):
        """Open the file as it is; JournalError if it is missing."""
        self.close()
        if not os.path.isfile(self.path):
            raise JournalError(f"the journal {self.path} is missing")
        self.opened = self.identity()
        self.connection = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
        self.connection.text_factory = bytes
        return self

    def close(self):
        """Close the file."""
        if self.connection:
            self.connection.close()
            self.connection = None

    def identity(self):
        """Device and inode of the file."""
        status = os.stat(self.path)
        return status.st_dev, status.st_ino

    def replaced(self):
        """Whether another file has taken the place of the one that is open."""
        try:
            return self.identity() != self.opened
        except OSError:
            return True

    def tables(self, kind):
        """The tables of a kind, the oldest first: one for each set of columns that the description has had."""
        rows = self.connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE ? ESCAPE '!' ORDER BY rowid",
            (kind + "!_%",),
        )
        return [name.decode() for (name,) in rows]

    def columns_of(self, table):
        """The names of a table's columns."""
        return [row[1].decode() for row in self.connection.execute(f"PRAGMA table_info({quoted(table)})")]

    def read(self, table):
        """The oldest records of a table, as pairs of their id and a dictionary of bytes by column."""
        cursor = self.connection.execute(f"SELECT * FROM {quoted(table)} ORDER BY AcctId LIMIT {BATCH}")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row)) for row in cursor]
        return [(row.pop("AcctId"), {name: as_bytes(value) for name, value in row.items()}) for row in rows]

    def remove(self, table, last, refused):
        """Delete the records up to an id, and keep those that PostgreSQL refuses, as (record, error)."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            self.connection.executemany(
                "INSERT INTO rejected (at, error, record) VALUES (datetime('now'), ?, ?)",
                [(error, to_json(record)) for record, error in refused],
            )
            self.connection.execute(f"DELETE FROM {quoted(table)} WHERE AcctId <= ?", (last,))
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def waiting(self):
        """The numbers of what waits by kind, and the age of the oldest in seconds, since the end of its call."""
        counts, ends = dict.fromkeys(KEYS, 0), []
        for kind, table in [(each, table) for each in KEYS for table in self.tables(each)]:
            counts[kind] += self.connection.execute("SELECT COUNT(*) FROM " + quoted(table)).fetchone()[0]
            first = self.connection.execute(f"SELECT * FROM {quoted(table)} ORDER BY AcctId LIMIT 1")
            names = [column[0] for column in first.description]
            for row in first:
                record = {name: as_bytes(value) for name, value in zip(names, row)}
                began = record.get("calldate") or record.get("eventtime")
                ends.append(number(began, 0.0) + number(record.get("duration"), 0.0))
        return counts, max(0.0, time.time() - min(ends)) if ends else 0.0

    def rejected(self):
        """The number of records that PostgreSQL has refused."""
        return self.connection.execute("SELECT COUNT(*) FROM rejected").fetchone()[0]

    def retry(self):
        """Put the refused records back, for another attempt; returns their number."""
        self.connection.execute("BEGIN IMMEDIATE")
        known = {kind: self.columns_of(table) for kind, (table, _columns) in self.written.items()}
        rows = self.connection.execute("SELECT record FROM rejected ORDER BY id").fetchall()
        for (text,) in rows:
            whole = from_json(text)
            kind = "cel" if "eventtype" in whole else "cdr"
            record = {name: value for name, value in whole.items() if name in known[kind]}
            self.connection.execute(
                "INSERT INTO {} ({}) VALUES ({})".format(
                    quoted(self.written[kind][0]),
                    ", ".join(quoted(name) for name in record),
                    ", ".join(["CAST(? AS TEXT)"] * len(record)),
                ),
                list(record.values()),
            )
        self.connection.execute("DELETE FROM rejected")
        self.connection.execute("COMMIT")
        return len(rows)

    def free_megabytes(self):
        """The space that is left on the file system of the journal."""
        status = os.statvfs(self.directory)
        return status.f_bavail * status.f_frsize // 1048576

    def prepare(self):
        """Make the file, or put right what is wrong with it; whatever it contains is kept."""
        self._make_directory()
        if os.path.lexists(self.path):
            problem = self._damage()
            if problem:
                aside = "{}.damaged-{}".format(self.path, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
                while os.path.lexists(aside):
                    aside += "+"
                for suffix in ("", "-wal", "-shm"):
                    if os.path.lexists(self.path + suffix):
                        os.rename(self.path + suffix, aside + suffix)
                log(
                    ERROR,
                    f"The journal {self.path} is damaged ({problem}); it is kept as {aside}, and a new one is made",
                )
            elif os.stat(self.path).st_mode & 0o660 != 0o660:
                log(ERROR, f"The journal {self.path} was read-only; its mode is 0660 again")
        try:
            self._make_tables()
        except sqlite3.Error as problem:
            raise JournalError(f"the journal {self.path} cannot be written ({reason(problem)})") from None
        self._give_to_owner()

    def _make_directory(self):
        os.makedirs(self.directory, exist_ok=True)
        if os.geteuid() == 0:
            import grp
            import pwd

            os.chown(self.directory, pwd.getpwnam(self.owner).pw_uid, grp.getgrnam(self.owner).gr_gid)
        # Files that either user makes belong to the group.
        os.chmod(self.directory, 0o2770)

    def _give_to_owner(self):
        status = os.stat(self.directory)
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(self.path + suffix):
                if os.geteuid() == 0:
                    os.chown(self.path + suffix, status.st_uid, status.st_gid)
                # Asterisk may have made one of them, with the mode of the first: another user cannot change that.
                if stat.S_IMODE(os.stat(self.path + suffix).st_mode) != 0o660:
                    os.chmod(self.path + suffix, 0o660)

    def _damage(self):
        """What is wrong with the file that is there, empty if nothing is."""
        if not stat.S_ISREG(os.lstat(self.path).st_mode):
            return "it is no regular file"
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY)) as connection:
                answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                return "" if answer == "ok" else reason(answer)
        except sqlite3.DatabaseError as problem:
            # Its subclasses are about locks, space and rights.
            return reason(problem) if type(problem) is sqlite3.DatabaseError else ""

    def _make_tables(self):
        # For the group from the first moment.
        before = os.umask(0o007)
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)) as connection:
                connection.text_factory = bytes
                self.connection = connection
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN IMMEDIATE")
                for kind, (table, columns) in self.written.items():
                    found = self.columns_of(table)
                    if found and found != ["AcctId"] + columns:
                        others = f"{table}_before_{len(self.tables(kind))}"
                        connection.execute(f"ALTER TABLE {quoted(table)} RENAME TO {quoted(others)}")
                        log(ERROR, f"Table {table} of {self.path} had other columns; its records are in table {others}")
                    # Without AUTOINCREMENT the id of a deleted record would be used again.
                    connection.execute(
                        "CREATE TABLE IF NOT EXISTS {} (AcctId INTEGER PRIMARY KEY AUTOINCREMENT, {})".format(
                            quoted(table), ", ".join(quoted(name) + " TEXT" for name in columns)
                        )
                    )
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS rejected"
                    " (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT, error TEXT, record TEXT)"
                )
                connection.execute("COMMIT")
        finally:
            self.connection = None
            os.umask(before)


def as_bytes(value):
    """A value of SQLite as bytes; a number may have been written by hand."""
    return value if isinstance(value, bytes) else b"" if value is None else str(value).encode()


def number(value, otherwise):
    """The number that a value begins with."""
    found = re.match(rb"\s*[-+]?\d+(\.\d+)?", value or b"")
    return float(found.group()) if found else otherwise


def to_json(record):
    """A record as JSON; bytes that are not UTF-8 become lone surrogates, so that nothing is lost."""
    return json.dumps({name: value.decode("utf-8", "surrogateescape") for name, value in record.items()})


def from_json(text):
    """The reverse of to_json()."""
    return {name: value.encode("utf-8", "surrogateescape") for name, value in json.loads(text.decode()).items()}


class Database:
    """The table of a kind; settings: the section [database], codec: how Python calls the records' encoding."""

    def __init__(self, settings, encoding, kind="cdr"):
        self.login = {name: value for name, value in settings.items() if name != "table"}
        self.table = settings["table"] if kind == "cdr" else kind
        self.keys, self.compared = KEYS[kind], COMPARED[kind]
        self.codec = extensions.encodings.get(encoding.upper().replace("-", "").replace("_", ""), "iso8859_15")
        self.connection = None
        self.types = {}

    def where(self):
        """The database in words."""
        return "database {dbname} at {host}:{port}".format(**self.login)

    def insert(self, records):
        """Insert records that are not there yet, and commit; returns the refused ones as (record, error)."""
        if self.connection is None:
            self._connect()
        refused, rows = [], []
        with self.connection.cursor() as cursor:
            for record in records:
                try:
                    rows.append((record, self._row(cursor, record)))
                except (ValueError, psycopg2.DataError, psycopg2.ProgrammingError) as problem:
                    refused.append((record, reason(problem)))
            self._insert(cursor, rows, refused)
        self.connection.commit()
        return refused

    def close(self):
        """Close the connection, if there is one."""
        if self.connection is not None:
            with suppress(psycopg2.Error):
                self.connection.close()
            self.connection = None

    def _connect(self):
        options = [
            "statement_timeout=10000",
            "lock_timeout=5000",
            "idle_in_transaction_session_timeout=30000",
            "synchronous_commit=on",
            "timezone=UTC",
            "datestyle=ISO",
        ]
        login = dict(
            self.login,
            application_name="labredes-cdr",
            client_encoding="UTF8",
            connect_timeout="5",
            keepalives_idle="10",
            keepalives_interval="5",
            keepalives_count="3",
            options=" ".join("-c " + option for option in options),
        )
        if extensions.libpq_version() >= 120000:
            login["tcp_user_timeout"] = "15000"
        # The time limits of libpq do not end the wait for a server that is frozen.
        extensions.set_wait_callback(wait_for_answer)
        self.connection = psycopg2.connect(**login)
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT a.attname, t.typname, a.attnotnull AND NOT a.atthasdef"
                " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
                " WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped",
                (extensions.quote_ident(self.table, self.connection),),
            )
            self.types = {name: (kind, needed) for name, kind, needed in cursor.fetchall()}
        self.connection.commit()

    def _row(self, cursor, record):
        """A record as the values of an INSERT, in bytes."""
        lacking = [name for name in self.keys if not record.get(name)]
        if lacking:
            raise ValueError("it has no {}".format(" and no ".join(lacking)))
        values = [self._value(name, value) for name, value in record.items() if name in self.types]
        return cursor.mogrify("(" + ",".join(["%s"] * len(values)) + ")", values)

    def _value(self, name, value):
        """What Asterisk itself (cdr_pgsql) would write into the column."""
        kind, needed = self.types[name]
        if name in TIMES and value:
            seconds = number(value, None)
            # Of the years that Python, SQL and Asterisk have in common.
            if seconds is None or not -62e9 < seconds < 253e9:
                raise ValueError("{} is no time: {}".format(name, value[:40].decode("ascii", "backslashreplace")))
            if seconds == 0:
                return extensions.AsIs("DEFAULT")
            if kind.startswith("float"):
                return value.decode("ascii")
            if kind.startswith("int"):
                return str(int(seconds))
            whole, fraction = divmod(round(seconds * 1e6), 1000000)
            text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(whole))
            return f"{text}.{fraction:06d}" if name in self.keys else text
        if not value:
            return "" if needed and not kind.startswith(("int", "float")) else extensions.AsIs("DEFAULT")
        if kind.startswith("int"):
            found = re.match(rb"\s*[-+]?\d+", value)
            return found.group().decode() if found else "0"
        if kind.startswith("float"):
            return str(number(value, 0))
        return self._sent(value)

    def _sent(self, value):
        """Text in the records' encoding; what is invalid in it is LATIN9, in which every byte is valid."""
        try:
            return value.decode(self.codec)
        except UnicodeDecodeError:
            return value.decode("iso8859_15")

    def _forms(self, value):
        """The text as it is sent, and as the table's trigger repairs it."""
        forms = {self._sent(value)}
        with suppress(UnicodeDecodeError):
            forms.add(value.decode())
        return forms

    def _insert(self, cursor, rows, refused):
        """Insert rows, in halves where one of them is refused."""
        if not rows:
            return
        names = [name for name in rows[0][0] if name in self.types]
        statement = "INSERT INTO {} ({}) VALUES ".format(
            extensions.quote_ident(self.table, self.connection),
            ", ".join(extensions.quote_ident(name, self.connection) for name in names),
        )
        cursor.execute("SAVEPOINT records")
        try:
            cursor.execute(
                statement.encode()
                + b",".join(values for _record, values in rows)
                + " ON CONFLICT ({}) DO NOTHING RETURNING {}".format(", ".join(self.keys), self._key_as_text()).encode()
            )
            new = cursor.fetchall()
        except psycopg2.Error as problem:
            if (problem.pgcode or "")[:2] not in REFUSED:
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT records")
            if len(rows) == 1:
                refused.append((rows[0][0], f"{problem.pgcode} {reason(problem.diag.message_primary)}"))
                return
            half = len(rows) // 2
            self._insert(cursor, rows[:half], refused)
            self._insert(cursor, rows[half:], refused)
            return
        if len(new) < len(rows):
            refused += self._others(cursor, [record for record, _values in rows], new)

    def _key_as_text(self):
        """The parts of a row's key in SQL."""
        return ", ".join(text.format(name) for name, text in self.keys.items())

    def _keys_of(self, record):
        """The keys under which the table may have a record."""
        parts = [
            {self._value(name, record[name])} if name in ("sequence", "eventtime") else self._forms(record[name])
            for name in self.keys
        ]
        return list(itertools.product(*parts))

    def _others(self, cursor, records, new):
        """Those records whose key belongs to another record, as after a clock was set back."""
        known = []
        for record in records:
            keys = self._keys_of(record)
            found = [key for key in keys if key in new]
            if found:
                new.remove(found[0])
            else:
                known.append((keys, record))
        names = [
            name
            for name in self.compared
            if name in records[0] and self.types.get(name, ("",))[0].startswith(("int", "varchar", "text", "timestamp"))
        ]
        cursor.execute(
            "SELECT {}, ARRAY[{}]::text[] FROM {} WHERE uniqueid = ANY(%s)".format(
                self._key_as_text(),
                ", ".join(extensions.quote_ident(name, self.connection) + "::text" for name in names),
                extensions.quote_ident(self.table, self.connection),
            ),
            (sorted({key[0] for keys, _record in known for key in keys}),),
        )
        stored = {tuple(row[:-1]): row[-1] for row in cursor.fetchall()}
        others = []
        for keys, record in known:
            facts = [stored[key] for key in keys if key in stored]
            if facts and not all(self._same(name, record[name], fact) for name, fact in zip(names, facts[0])):
                others.append((record, "another record has its " + " and ".join(self.keys)))
        return others

    def _same(self, name, value, stored):
        """Whether the table has what the record has."""
        if not value or stored is None:
            return True
        sent = self._value(name, value)
        if name in TIMES:
            return stored.startswith(str(sent)) or not isinstance(sent, str)
        return stored in self._forms(value) | {sent}


def wait_for_answer(connection):
    """Wait for the server, within a limit."""
    deadline = time.monotonic() + ANSWER
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        reads, writes = ([connection], []) if state == extensions.POLL_READ else ([], [connection])
        if not any(select.select(reads, writes, [], max(0, deadline - time.monotonic()))):
            raise psycopg2.OperationalError(f"it did not answer within {ANSWER} s")


class Relay(Thread):
    """The way of Asterisk's own records (cdr_pgsql) to the database, since libpq has no time limit for an answer.

    A database that is frozen or locked would hold up Asterisk's one thread for records, which also writes the journal,
    and in the end calls. Here the first record waits for HELD seconds, and none until LONGEST is over.
    """

    def __init__(self, path, address):
        super().__init__(daemon=True)
        self.address = address
        self.peers = {}
        self.servers = set()  # those of the peers that are connections to the database
        self.due = {}  # when a server's answer is due
        self.refusing = 0.0
        with suppress(FileNotFoundError):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        os.chmod(path, 0o660)
        self.listener.listen(8)

    def run(self):
        """Pass on until the service ends; the service does not go on without this thread."""
        try:
            while True:
                self.step()
        except Exception:
            traceback.print_exc()
            os._exit(1)

    def step(self):
        """Pass on what has come, and end what has taken too long."""
        wait = max(0, min(self.due.values()) - time.monotonic()) if self.due else None
        for ready in select.select([self.listener] + list(self.peers), [], [], wait)[0]:
            if ready is self.listener:
                self.accept()
            elif ready in self.peers:
                self.pass_on(ready)
        for server in [server for server, due in self.due.items() if time.monotonic() >= due]:
            self.end(server)
            self.refuse()

    def accept(self):
        """Connect a client to the database, unless it has not answered just now."""
        client = self.listener.accept()[0]
        try:
            if time.monotonic() < self.refusing:
                raise OSError
            server = socket.create_connection(self.address, HELD)
        except OSError as problem:
            client.close()
            if isinstance(problem, socket.timeout):
                self.refuse()
            return
        client.settimeout(HELD)
        self.peers.update({client: server, server: client})
        self.servers.add(server)

    def pass_on(self, sender):
        """Pass on what a side has sent: a question starts the time, and any answer stops it."""
        try:
            data = sender.recv(65536)
            self.peers[sender].sendall(data)
        except OSError:
            data = b""
        if not data:
            self.end(sender)
        elif sender in self.servers:
            self.due.pop(sender, None)
        else:
            self.due.setdefault(self.peers[sender], time.monotonic() + HELD)

    def end(self, side):
        """Close both sides of a connection."""
        for each in (self.peers[side], side):
            del self.peers[each]
            self.servers.discard(each)
            self.due.pop(each, None)
            each.close()

    def refuse(self):
        """Let nobody wait for a while."""
        self.refusing = time.monotonic() + LONGEST
        log(WARNING, f"The database did not answer Asterisk within {HELD} s; it is not asked again for {LONGEST} s")


class Warnings:
    """Sentences that are written when they begin to hold, every ten minutes while they do, and when they end."""

    def __init__(self):
        self.since = {}

    def hold(self, kind, sentence):
        """Write a sentence, or, where it is empty, that what it said has ended."""
        now = time.monotonic()
        if sentence and now - self.since.get(kind, -REPEAT) >= REPEAT:
            self.since[kind] = now
            log(WARNING, sentence)
        elif not sentence and kind in self.since:
            del self.since[kind]
            log(NOTICE, f"{kind} again")


class Forwarder:
    """The service."""

    def __init__(self, configuration, status):
        self.settings = configuration["forwarder"]
        self.journal = Journal(configuration)
        self.databases = {kind: Database(configuration["database"], self.settings["encoding"], kind) for kind in KEYS}
        self.status_file = status
        self.relay = Relay(
            os.path.join(os.path.dirname(status), ".s.PGSQL." + configuration["database"]["port"]),
            (configuration["database"]["host"], int(configuration["database"]["port"])),
        )
        self.warnings = Warnings()
        self.stopped = False
        self.delay = dict.fromkeys(KEYS, POLL)
        self.due = dict.fromkeys(KEYS, 0.0)
        self.problem = dict.fromkeys(KEYS, "")
        self.reported = 0.0

    def run(self):
        """Forward until SIGTERM."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self.stop)
        self.journal.open()
        self.report()
        self.relay.start()
        notify("READY=1")
        while not self.stopped:
            notify("WATCHDOG=1")
            # Each by itself: a table that is missing holds up its own records alone.
            full = [self.forward(kind) for kind in KEYS if time.monotonic() >= self.due[kind]]
            if time.monotonic() - self.reported >= REPORT:
                if self.journal.replaced():
                    raise JournalError(f"the journal {self.journal.path} has been replaced")
                self.report()
            if not any(full):
                time.sleep(POLL)
        self.report()
        for database in self.databases.values():
            database.close()
        self.journal.close()

    def stop(self, _number, _frame):
        """Note a signal; an Event would take its lock, which the wait that was interrupted may hold."""
        self.stopped = True

    def forward(self, kind):
        """Move one batch of each table of a kind; returns whether there is more at once."""
        full = False
        for table in self.journal.tables(kind):
            rows = self.journal.read(table)
            if not rows:
                continue
            try:
                refused = self.databases[kind].insert([record for _number, record in rows])
            except (psycopg2.Error, OSError) as problem:
                self.databases[kind].close()
                self.lost(kind, problem)
                return False
            if self.problem[kind]:
                self.problem[kind] = ""
                self.warnings.hold(self.answers(kind), "")
            self.delay[kind] = POLL
            self.relay.refusing = 0.0
            try:
                self.journal.remove(table, rows[-1][0], refused)
            except sqlite3.OperationalError as problem:
                if "readonly" in str(problem):  # another start of the service puts that right
                    raise
                self.warnings.hold(
                    "The journal can be written",
                    f"The journal {self.journal.path} cannot be written ({reason(problem)})",
                )
                self.due[kind] = time.monotonic() + LONGEST
                return False
            self.warnings.hold("The journal can be written", "")
            for _record, error in refused:
                log(ERROR, f"A record is refused and kept in the table rejected of the journal: {error}")
            full = full or len(rows) == BATCH
        return full

    def answers(self, kind):
        """What a warning says when it ends."""
        return "The database answers" if kind == "cdr" else f"The table {kind} takes records"

    def lost(self, kind, problem):
        """Note that the database does not answer, and wait before the next attempt."""
        place = self.databases[kind].where()
        self.problem[kind] = f"The {place} cannot be written ({reason(problem)}); records wait in the journal"
        self.warnings.hold(self.answers(kind), self.problem[kind])
        self.due[kind] = time.monotonic() + self.delay[kind]
        self.delay[kind] = min(LONGEST, self.delay[kind] * 2)
        # Without an answer for one kind, there is none for another, which would wait for it as long.
        if not getattr(problem, "pgcode", None):
            for other in KEYS:
                self.due[other] = max(self.due[other], self.due[kind])

    def report(self):
        """Write what waits to the status file, systemd and, where it is too much, the host's journal."""
        self.reported = time.monotonic()
        state = state_of(self.journal)
        state["problem"] = next(filter(None, self.problem.values()), "")
        try:
            with open(self.status_file + ".new", "w") as stream:
                json.dump(state, stream)
            os.chmod(stream.name, 0o644)
            os.rename(stream.name, self.status_file)
        except OSError as problem:
            self.warnings.hold(
                "The status file can be written", f"{self.status_file} cannot be written ({reason(problem)})"
            )
        events = " and {waiting_events} channel events".format(**state) if state["waiting_events"] else ""
        notify(
            "STATUS={waiting} records{events} wait, the oldest for {oldest_seconds} s; {rejected} are rejected".format(
                events=events, **state
            )
        )
        limit, space = int(self.settings["warn_seconds"]), int(self.settings["warn_megabytes"])
        self.warnings.hold(
            f"The oldest record waits for less than {limit} s",
            (
                "{waiting} call records{events} wait in the journal, the oldest for {oldest_seconds} s".format(
                    events=events, **state
                )
                if state["oldest_seconds"] > limit
                else ""
            ),
        )
        self.warnings.hold(
            f"The journal has {space} MB of disk",
            (
                "the disk of the journal {} has only {free_megabytes} MB left".format(self.journal.path, **state)
                if state["free_megabytes"] < space
                else ""
            ),
        )


def state_of(journal):
    """What waits, as a dictionary."""
    counts, age = journal.waiting()
    return {
        "waiting": counts["cdr"],
        "waiting_events": counts["cel"],
        "oldest_seconds": int(age),
        "rejected": journal.rejected(),
        "free_megabytes": journal.free_megabytes(),
    }


def writers():
    """The kinds of records that Asterisk writes to the journal, with the file that says so."""
    found = {}
    for kind, path in ASTERISK_FILES.items():
        with suppress(OSError), open(path) as stream:
            text = stream.read()
            if f"table = {kind}_" in text:
                found[kind] = text
    return found


def asterisk_writes(journal):
    """Whether the modules of the running Asterisk have the journal open; True where none runs or writes to it yet."""
    show = ["systemctl", "show", "--property=MainPID", "--property=ActiveState", "asterisk.service"]
    used = writers()
    if not used:
        return True
    try:
        unit = dict(line.split("=", 1) for line in subprocess.check_output(show, timeout=10).decode().splitlines())
        if unit["ActiveState"] != "active":
            return True
        directory = "/proc/{MainPID}/fd".format(**unit)
        opened = [os.stat(os.path.join(directory, name)) for name in os.listdir(directory)]
    except (OSError, KeyError, ValueError, subprocess.SubprocessError):
        return True
    return [(status.st_dev, status.st_ino) for status in opened].count(journal.identity()) >= len(used)


def have_asterisk_open(journal):
    """Have a running Asterisk open the journal, if it has another one, or none, open."""
    if asterisk_writes(journal):
        return
    # A module that could not load loads now; from 20.19 and 22.9 on, one that reads a changed file opens the journal.
    # None is unloaded: Asterisk may crash when a call ends meanwhile.
    for verb, (kind, text) in itertools.product(("load", "reload"), writers().items()):
        # There cel_sqlite3_custom closes the journal by a reload and does not open it again.
        if (verb, kind) == ("reload", "cel") and "\nfields" not in text:
            continue
        command = f"module {verb} {kind}_sqlite3_custom.so"
        os.utime(ASTERISK_FILES[kind])
        try:
            subprocess.run([ASTERISK, "-rx", command], stdout=subprocess.DEVNULL, timeout=10, check=False)
        except subprocess.TimeoutExpired:
            break
        if asterisk_writes(journal):
            log(NOTICE, f"Asterisk has opened the journal {journal.path}")
            return
    log(ERROR, f"Asterisk does not write to the journal {journal.path}; restart asterisk.service")


def main(arguments=None):
    """Run a command."""
    parser = argparse.ArgumentParser(description="Call records on their way from Asterisk to PostgreSQL.")
    parser.add_argument("command", choices=["run", "prepare", "status", "rejected", "retry"])
    parser.add_argument("--config", default=CONFIGURATION)
    parser.add_argument("--status", default=STATUS)
    options = parser.parse_args(arguments)
    configuration = configparser.ConfigParser(interpolation=None)
    with open(options.config) as stream:
        configuration.read_file(stream)
    journal = Journal(configuration)
    try:
        if options.command == "run":
            if psycopg2 is None:
                raise JournalError("python3-psycopg2 is not installed")
            Forwarder(configuration, options.status).run()
        elif options.command == "prepare":
            journal.prepare()
            have_asterisk_open(journal)
        elif options.command == "status":
            print(json.dumps(state_of(journal.open())))
        elif options.command == "rejected":
            for row in journal.open().connection.execute("SELECT at, error, record FROM rejected ORDER BY id"):
                print(*(value.decode() for value in row), sep="\t")
        else:
            print(f"{journal.open().retry()} records are tried again.")
    except (JournalError, sqlite3.Error, OSError) as problem:
        sentence = reason(problem)
        if not isinstance(problem, JournalError):
            sentence = f"the journal {journal.path} cannot be used ({sentence})"
        log(ERROR, sentence[0].upper() + sentence[1:])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
