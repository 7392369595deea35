"""The files and databases of an exchange in a directory of this machine, for the tests of backup and restore."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from ansible_collections.labredes.pbx.plugins.module_utils import exchange_data
from records import JOURNAL


def message(place: Path, name: str, identity: str, sound: bytes = b"sound") -> None:
    """A message in a folder."""
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.txt").write_text(f"[message]\norigtime=1600000000\nmsg_id={identity}\n")
    (place / f"{name}.wav").write_bytes(sound + identity.encode())


class Host:
    """The directories and databases of an exchange."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.spool, self.mail = directory / "spool", directory / "spool/voicemail"
        self.astdb, self.journal = directory / "astdb.sqlite3", directory / "journal.db"
        self.mail.mkdir(parents=True)
        (directory / "sounds").mkdir()
        with contextlib.closing(sqlite3.connect(self.astdb)) as database:
            database.execute("CREATE TABLE astdb (key VARCHAR(256), value VARCHAR(256), PRIMARY KEY(key))")
        columns = ", ".join(f'"{name}" TEXT' for name in JOURNAL["columns"])
        with contextlib.closing(sqlite3.connect(self.journal)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(f'CREATE TABLE "{JOURNAL["table"]}" (AcctId INTEGER PRIMARY KEY AUTOINCREMENT, {columns})')
            database.execute(
                "CREATE TABLE rejected (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT, error TEXT, record TEXT)"
            )
        (directory / "key").write_text(f"key of {directory.name}")
        (directory / "hostkey").write_text(f"host key of {directory.name}")

    def options(self) -> dict:
        """What both modules take."""
        return {
            "trees": {"voicemail": str(self.mail), "monitor": str(self.spool / "monitor"),
                      "sounds": str(self.directory / "sounds")},
            "astdb": str(self.astdb),
            "journal": str(self.journal),
        }  # fmt: skip

    def put(self, key: str, value: str) -> None:
        """Set a value of Asterisk's database."""
        with contextlib.closing(sqlite3.connect(self.astdb)) as database, database:
            database.execute("INSERT OR REPLACE INTO astdb VALUES (?, ?)", (key, value))

    def values(self) -> dict:
        """The values of Asterisk's database."""
        with contextlib.closing(sqlite3.connect(self.astdb)) as database:
            return dict(database.execute("SELECT key, value FROM astdb"))

    def query(self, statement: str, *values: object) -> list:
        """A statement on the journal."""
        with contextlib.closing(sqlite3.connect(self.journal, timeout=10)) as database, database:
            database.text_factory = bytes
            return database.execute(statement, values).fetchall()

    def wait(self, uniqueid: str, caller: bytes = b"Ana") -> None:
        """A record that waits in the journal."""
        self.query(
            f'INSERT INTO "{JOURNAL["table"]}" (uniqueid, sequence, clid) VALUES (?, 1, CAST(? AS TEXT))',
            uniqueid,
            caller,
        )

    def files(self) -> dict:
        """The files below the spool with their contents."""
        return {name: (self.spool / name).read_bytes() for name in exchange_data.files_below(self.spool)}
