# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The data of an exchange as the modules exchange_backup and exchange_restore read it. Runs on Python 3.6 and later.

An archive of it is a tar file whose members are called after what they are: voicemail/CONTEXT/NUMBER/... and so on for
each directory, the name of each single file, astdb.sqlite3 and journal.db. Owners are kept by name.
"""

import hashlib
import os
import re
import shutil
import sqlite3
import time
from contextlib import closing

MESSAGE = re.compile(r"(msg\d{4,})\.(.+)")
GREETING = re.compile(r"(unavail|busy|greet|temp)\.")
PIN = "secret.conf"
FORWARD = re.compile(r"/REDIRECT/(\w+)$")


class DataError(Exception):
    """What went wrong, as one sentence without its full stop."""


def walk(directory):
    """os.walk() without the directories for what Asterisk is writing at the moment."""
    for place, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name != "tmp" and not name.startswith(".")]
        yield place, directories, names


def files_below(directory):
    """The regular files below a directory, as sorted paths relative to it."""
    found = []
    for place, _directories, names in walk(directory):
        paths = [os.path.join(place, name) for name in names if not name.startswith(".")]
        found += [
            os.path.relpath(path, directory) for path in paths if os.path.isfile(path) and not os.path.islink(path)
        ]
    return sorted(found)


def digest(stream):
    """The SHA-256 of an open binary file."""
    sha256 = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        sha256.update(block)
    return sha256.hexdigest()


def message_identity(text):
    """What tells the message of a text file (bytes) from others, in whatever folder and under whatever number."""
    fields = dict(line.partition(b"=")[::2] for line in text.splitlines())
    names = (b"msg_id",) if fields.get(b"msg_id") else (b"origtime", b"callerid", b"duration", b"origmailbox")
    return tuple(fields.get(name, b"") for name in names)


def copy_astdb(source, target, seconds=30):
    """Copy Asterisk's database, which a running Asterisk may write at any time, without a lock.

    Asterisk waits for no lock: where somebody reads at the moment of its commit, even through SQLite's own backup
    interface, it rolls back what was set in the last second. So the file is copied at a time when no transaction is
    open (it has no journal), and the copy counts if none was committed meanwhile (the counter in the header).
    """
    deadline = time.monotonic() + seconds
    while True:
        before = _commits(source)
        if before is not None:
            shutil.copyfile(source, target)
            if _commits(source) == before:
                check_database(target)
                return
        if time.monotonic() > deadline:
            raise DataError(f"{source} was written without a pause for {seconds} s")
        time.sleep(0.02)


def _commits(path):
    """The counter of commits in a database's header; None while a transaction is open."""
    if os.path.exists(path + "-journal"):
        return None
    with open(path, "rb") as stream:
        stream.seek(24)
        counter = stream.read(4)
    return None if os.path.exists(path + "-journal") else (counter, os.stat(path).st_mtime_ns)


def copy_journal(source, target):
    """Copy the journal of call records, whose readers and writers do not wait for each other (WAL)."""
    with closing(sqlite3.connect(source, timeout=10, isolation_level=None)) as journal:
        journal.text_factory = bytes
        journal.execute("ATTACH ? AS copy", (target,))
        journal.execute("BEGIN")
        for name, statement in tables(journal):
            journal.execute(re.sub(r"^CREATE TABLE ", "CREATE TABLE copy.", statement, count=1))
            journal.execute(f"INSERT INTO copy.{quoted(name)} SELECT * FROM main.{quoted(name)}")
        journal.execute("COMMIT")
        journal.execute("DETACH copy")
    check_database(target)


def tables(connection, schema="main"):
    """The tables of records and events in a journal, and that of the rejected ones, as (name, statement of SQL)."""
    rows = connection.execute(
        f"SELECT name, sql FROM {schema}.sqlite_master WHERE type = 'table'"
        " AND (name LIKE 'cdr!_%' ESCAPE '!' OR name LIKE 'cel!_%' ESCAPE '!' OR name = 'rejected') ORDER BY rowid"
    )
    return [(name.decode(), statement.decode()) for name, statement in rows.fetchall()]


def quoted(name):
    """A name as an identifier of SQLite."""
    return '"' + name.replace('"', '""') + '"'


def check_database(path):
    """Refuse a file that is no whole database of SQLite."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as problem:
        answer = str(problem)
    if answer != "ok":
        raise DataError(f"{os.path.basename(path)} is damaged ({answer})")


def astdb_values(path):
    """The keys of a copy of Asterisk's database with their values, in bytes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        return dict(connection.execute("SELECT key, value FROM astdb").fetchall())


def journal_counts(path):
    """The numbers of records that wait in a copy of the journal, and of rejected ones."""
    counts = {"waiting": 0, "rejected": 0}
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        for name, _statement in tables(connection):
            number = connection.execute(f"SELECT COUNT(*) FROM {quoted(name)}").fetchone()[0]
            counts["rejected" if name == "rejected" else "waiting"] += number
    return counts


def package_files(package):
    """The paths that belong to a Debian package."""
    try:
        with open(f"/var/lib/dpkg/info/{package}.list", encoding="utf-8") as stream:
            return set(stream.read().splitlines())
    except OSError:
        return set()


def voicemail_counts(names):
    """Messages by mailbox, and the numbers of greetings and of changed PINs, among paths relative to the voicemail."""
    messages = {}  # type: dict[str, int]
    greetings = pins = 0
    for name in names:
        parts = name.split("/")
        if len(parts) == 4 and MESSAGE.fullmatch(parts[3]) and parts[3].endswith(".txt"):
            messages[parts[1]] = messages.get(parts[1], 0) + 1
        elif len(parts) == 3:
            pins += parts[2] == PIN
            greetings += bool(GREETING.match(parts[2]))
    return {"messages": messages, "greetings": greetings, "pins": pins}
