# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The call records in a dump of PostgreSQL, while pg_restore reads it. Runs on Python 3.6 and later."""

import io
import re
import subprocess
import tempfile

COPY = re.compile(rb"COPY .+ \((.*)\) FROM stdin;\n")


class DumpError(Exception):
    """What is wrong, as one sentence without its full stop."""


class MissingTableError(DumpError):
    """The dump has no such table."""


class Records(io.RawIOBase):
    """The rows of a table in a dump, as COPY writes them, while they are read; date: the column with their time."""

    def __init__(self, path, table, date="calldate"):
        super().__init__()
        # To /dev/stdout, since "-" was no name for it before PostgreSQL 12.
        command = ["pg_restore", "--data-only", "--table=" + table, "--file=/dev/stdout", path]
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 as long as the process
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.complaints)
        self.error = None
        self.lines, self.whole = iter(self.process.stdout or ()), False
        self.count, self.latest, self.columns, self.rest = 0, "", [], b""
        for line in self.lines:
            found = COPY.fullmatch(line)
            if found:
                self.columns = [name.strip('"') for name in found.group(1).decode().split(", ")]
                break
        else:
            self.finish()
            raise MissingTableError(f"the dump has no table {table}")
        self.date = self.columns.index(date)

    def readable(self):
        """It can be read."""
        return True

    def next_row(self):
        """The next row, empty after the last."""
        line = b"" if self.whole else next(self.lines, b"")
        if not line or line == b"\\.\n":
            self.finish()
            if not line and not self.whole:
                raise self.problem("the dump ends in the middle of its table")
            self.whole = True
            return b""
        self.count += 1
        self.latest = max(self.latest, line.split(b"\t")[self.date].decode("ascii", "replace").strip())
        return line

    def readinto(self, buffer):
        """Fill a buffer with rows."""
        while len(self.rest) < len(buffer):
            row = self.next_row()
            if not row:
                break
            self.rest += row
        part, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def finish(self):
        """Read to the end; DumpError if pg_restore complains."""
        for _line in self.lines:
            pass
        if self.process.wait():
            self.complaints.seek(0)
            reason = " ".join(self.complaints.read().decode("utf-8", "replace").split()).rstrip(".")
            raise self.problem(f"the dump cannot be read ({reason})")

    def problem(self, sentence):
        """An error that is kept, since whoever reads this as a file may raise another."""
        self.error = DumpError(sentence)
        return self.error
