# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A query to PostgreSQL through libpq itself, the library the exchange writes its call records with.

An exchange whose database is on another host has neither psql nor psycopg2, but libpq always.
Signatures are from PostgreSQL's documentation, "libpq: C Library". Runs on Python 3.6 and later.
"""

import ctypes

CONNECTION_OK = 0
COMMAND_OK = 1
TUPLES_OK = 2


class DatabaseError(Exception):
    """What went wrong, as one sentence without its full stop."""


class Database:
    """One connection, to be closed by its user.

    host, port, name, user, password: of the database. seconds: how long connecting may take (at least 2).
    DatabaseError if the library is missing or the server refuses.
    """

    def __init__(self, host, port, name, user, password, seconds=5):
        try:
            self.library = ctypes.CDLL("libpq.so.5")
        except OSError:
            raise DatabaseError("libpq5 is not installed on the exchange, so no call record can reach PostgreSQL")
        self._declare()
        options = {
            "host": host,
            "port": str(port),
            "dbname": name,
            "user": user,
            "password": password,
            "connect_timeout": str(max(2, int(seconds))),
            "application_name": "labredes.pbx verify",
        }
        self.connection = self.library.PQconnectdbParams(_strings(options), _strings(options.values()), 0)
        if self.library.PQstatus(self.connection) != CONNECTION_OK:
            problem = _sentence(self.library.PQerrorMessage(self.connection))
            self.close()
            raise DatabaseError("database %s at %s:%s does not let user %s in: %s" % (name, host, port, user, problem))

    def query(self, statement, *values):
        """Run one statement with $1, $2 ... for the values; returns its rows as dictionaries of str (NULL: None)."""
        result = self.library.PQexecParams(
            self.connection, statement.encode("utf-8"), len(values), None, _strings(values), None, None, 0
        )
        try:
            if self.library.PQresultStatus(result) not in (COMMAND_OK, TUPLES_OK):
                problem = _sentence(self.library.PQerrorMessage(self.connection))
                raise DatabaseError("PostgreSQL refused a query: %s" % problem)
            columns = range(self.library.PQnfields(result))
            names = [self.library.PQfname(result, column).decode("utf-8") for column in columns]
            return [self._row(result, row, names) for row in range(self.library.PQntuples(result))]
        finally:
            self.library.PQclear(result)

    def close(self):
        """End the connection."""
        self.library.PQfinish(self.connection)

    def _row(self, result, row, names):
        found = {}
        for column, name in enumerate(names):
            empty = self.library.PQgetisnull(result, row, column)
            found[name] = None if empty else self.library.PQgetvalue(result, row, column).decode("utf-8", "replace")
        return found

    def _declare(self):
        """The types of the functions used: without them ctypes cuts pointers to 32 bits."""
        number, text, handle = ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
        texts = ctypes.POINTER(text)
        for name, answer, takes in (
            ("PQconnectdbParams", handle, (texts, texts, number)),
            ("PQstatus", number, (handle,)),
            ("PQerrorMessage", text, (handle,)),
            ("PQfinish", None, (handle,)),
            ("PQexecParams", handle, (handle, text, number, handle, texts, handle, handle, number)),
            ("PQresultStatus", number, (handle,)),
            ("PQclear", None, (handle,)),
            ("PQntuples", number, (handle,)),
            ("PQnfields", number, (handle,)),
            ("PQfname", text, (handle, number)),
            ("PQgetvalue", text, (handle, number, number)),
            ("PQgetisnull", number, (handle, number, number)),
        ):
            function = getattr(self.library, name)
            function.restype, function.argtypes = answer, takes


def _strings(values):
    """A NULL-terminated array of C strings."""
    encoded = [value.encode("utf-8") for value in values]
    return (ctypes.c_char_p * (len(encoded) + 1))(*(encoded + [None]))


def _sentence(message):
    """libpq's message as the tail of a sentence."""
    return " ".join((message or b"").decode("utf-8", "replace").split()).rstrip(".")
