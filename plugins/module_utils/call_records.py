# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Queries to the table of call records by psycopg2, each within a time limit. Runs on Python 3.6 and later."""

import select
import time
from contextlib import closing

try:
    import psycopg2
    from psycopg2 import extensions
except ImportError:
    psycopg2 = None


class DatabaseError(Exception):
    """What went wrong, as one sentence without its full stop."""


class CallRecords:
    """The table of a database; login: libpq's parameters host, port, dbname, user and password."""

    def __init__(self, table, login, seconds):
        if psycopg2 is None:
            raise DatabaseError("python3-psycopg2 is not installed; playbook verify.yml installs it")
        self.table, self.login, self.seconds = table, login, seconds

    def query(self, statement, *values):
        """Run a statement, where {table} is the table, on a connection of its own; returns rows as dictionaries."""
        extensions.set_wait_callback(self._wait)
        try:
            with closing(psycopg2.connect(**self.login)) as connection, connection, connection.cursor() as cursor:
                cursor.execute(statement.replace("{table}", extensions.quote_ident(self.table, connection)), values)
                names = [column[0] for column in cursor.description]
                return [dict(zip(names, row)) for row in cursor.fetchall()]
        except psycopg2.Error as problem:
            reason = " ".join(str(problem).split()).rstrip(".")
            where = f"database {self.login['dbname']} at {self.login['host']}:{self.login['port']}"
            raise DatabaseError(f"{where} cannot be queried: {reason}") from None
        finally:
            extensions.set_wait_callback(None)  # it is the whole process's

    def _wait(self, connection):
        """Wait for the server; libpq's own timeouts do not end the wait for a server that is frozen."""
        deadline = time.monotonic() + self.seconds
        while True:
            state = connection.poll()
            if state == extensions.POLL_OK:
                return
            reads, writes = ([connection], []) if state == extensions.POLL_READ else ([], [connection])
            if not any(select.select(reads, writes, [], max(0, deadline - time.monotonic()))):
                raise psycopg2.OperationalError(f"it did not answer within {self.seconds:g} s")
