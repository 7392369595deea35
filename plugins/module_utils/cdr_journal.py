# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The journal in which call records wait until they are in PostgreSQL. Runs on Python 3.6 and later."""

import os
import sqlite3
from contextlib import closing

from ansible_collections.labredes.pbx.plugins.module_utils.call_records import DatabaseError

SECONDS = 2  # for which its other users may hold the lock


class CdrJournal:
    """The file; without a path there is none, and nothing waits."""

    def __init__(self, path):
        self.path = path

    def written(self):
        """The number of records that have been written so far, forwarded ones included."""
        return self._sum("SELECT COALESCE(SUM(seq), 0) FROM sqlite_sequence WHERE name = ?", lambda name: (name,))

    def waiting(self, account):
        """The number of records that wait whose accountcode begins so."""
        return self._sum('SELECT COUNT(*) FROM "{}" WHERE accountcode LIKE ?', lambda _name: (account + "%",))

    def remove(self, account):
        """Delete the records whose accountcode begins so."""
        self._sum('DELETE FROM "{}" WHERE accountcode LIKE ?', lambda _name: (account + "%",))

    def events(self, channels):
        """The number of channel events that wait whose channel begins so."""
        return self._sum('SELECT COUNT(*) FROM "{}" WHERE channame LIKE ?', lambda _name: (channels + "%",), "cel_")

    def remove_events(self, channels):
        """Delete the channel events whose channel begins so."""
        self._sum('DELETE FROM "{}" WHERE channame LIKE ?', lambda _name: (channels + "%",), "cel_")

    def _sum(self, statement, values, kind="cdr_"):
        """Run a statement for each table of a kind; returns the sum of its answers."""
        if not self.path:
            return 0
        try:
            if not os.path.exists(self.path):
                raise sqlite3.OperationalError("it is missing")
            with closing(sqlite3.connect(self.path, timeout=SECONDS, isolation_level=None)) as connection:
                names = [
                    name
                    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                    if name.startswith(kind)
                ]
                total = 0
                for name in names:
                    row = connection.execute(statement.replace("{}", name), values(name)).fetchone()
                    total += row[0] if row else 0
                return total
        except sqlite3.Error as problem:
            raise DatabaseError(f"the journal {self.path} cannot be used: {problem}") from None
