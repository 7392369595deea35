#!/usr/bin/python3
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Removes recordings, voicemail messages and call records that are older than the exchange is to keep them.

Messages are removed as Asterisk itself does: under its lock of the folder, the text file first, and the others
renumbered without a gap. Runs on Python 3.6.
"""

import argparse
import configparser
import os
import re
import socket
import stat
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress

try:
    import psycopg2
    from psycopg2 import Error as PostgresError
    from psycopg2 import extensions
except ImportError:
    psycopg2, PostgresError = None, OSError

CONFIGURATION = "/etc/labredes-retention/retention.conf"
ASTERISK = "/usr/sbin/asterisk"
SOCKET = "/run/asterisk/asterisk.ctl"
DAY = 86400
LOCKED = 5  # seconds that Asterisk, too, waits for the lock of a folder
ANSWER = 2  # seconds that Asterisk may take to list its channels, while it waits for the lock itself
PATIENCE = 300  # seconds to wait for those who listen to their messages
PAUSE = 5  # seconds between two attempts
BATCH = 5000  # records in one transaction
MESSAGE = re.compile(r"msg(\d{4,})\.(\w+)")
# Directories of a mailbox that hold greetings, or what is being recorded.
OTHERS = ("tmp", "unavail", "busy", "greet", "temp")
ERROR, WARNING, NOTICE = "<3>", "<4>", "<5>"  # priorities


def log(level, sentence):
    """Write a line to the host's journal; its prefix is the priority."""
    print(level + sentence + ".", file=sys.stderr, flush=True)


def reason(problem):
    """A one-line reason of an exception."""
    return (" ".join(str(problem).split()) or type(problem).__name__).rstrip(".")


def remove_recordings(directories, limit):
    """Remove the files that were last written before a time, and empty directories; returns the number of files."""
    count = 0
    for directory in directories:
        for place, _names, files in os.walk(directory, topdown=False):
            before = os.lstat(place).st_mtime
            for path in (os.path.join(place, name) for name in files):
                with suppress(FileNotFoundError):
                    status = os.lstat(path)
                    if stat.S_ISREG(status.st_mode) and status.st_mtime < limit:
                        os.unlink(path)
                        count += 1
            # Not one that was just made for a new recording.
            if place != directory and before < limit:
                with suppress(OSError):
                    os.rmdir(place)
    return count


class BusyError(Exception):
    """A folder that cannot be changed now."""


class Folder:
    """A folder of a mailbox, such as INBOX."""

    def __init__(self, path):
        self.path = path
        self.lock_file = os.path.join(path, ".lock")
        # While it is there, this program changes the folder, or was ended while it did.
        self.mark = os.path.join(path, ".lock-labredes")

    def files(self):
        """The files of messages, as {number: {suffix: path}}."""
        found = {}
        for name in os.listdir(self.path):
            match = MESSAGE.fullmatch(name)
            if match:
                found.setdefault(int(match.group(1)), {})[match.group(2)] = os.path.join(self.path, name)
        return found

    def expired(self, limit):
        """The numbers of the messages that were left before a time."""
        return sorted(
            number for number, files in self.files().items() if "txt" in files and left_at(files["txt"]) < limit
        )

    @contextmanager
    def locked(self):
        """Hold Asterisk's lock of the folder (BusyError)."""
        interrupted = os.path.lexists(self.mark)
        os.close(os.open(self.mark, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o660))
        deadline = time.monotonic() + LOCKED
        while True:
            try:
                os.link(self.mark, self.lock_file)
                break
            except FileExistsError:
                if time.monotonic() > deadline:
                    if not interrupted:
                        os.unlink(self.mark)
                    raise BusyError(f"{self.path} is locked") from None
                time.sleep(0.01)
        try:
            if interrupted:
                self.remove_rests()
            yield
        except BusyError:
            self.unlock()
            raise
        except BaseException:
            os.unlink(self.lock_file)  # The mark says what is to be completed.
            raise
        self.unlock()

    def unlock(self):
        """Give the lock back."""
        os.unlink(self.lock_file)
        os.unlink(self.mark)

    def remove_rests(self):
        """Remove the sound of messages that have no text: this program was ended between the two."""
        for files in self.files().values():
            if "txt" not in files:
                for path in files.values():
                    os.unlink(path)

    def remove(self, limit):
        """Remove the messages that were left before a time, and close the gaps; returns their number."""
        numbers = self.expired(limit)
        if not numbers and not os.path.lexists(self.mark):
            return 0
        with self.locked():
            # Who opens the mailbox now waits for the lock. Who has it open knows its messages by their numbers.
            if mailbox_is_open():
                raise BusyError("somebody listens to voicemail")
            numbers = self.expired(limit)
            for number in numbers:
                files = self.files()[number]
                os.unlink(files.pop("txt"))
                for path in files.values():
                    os.unlink(path)
            self.close_gaps()
        return len(numbers)

    def close_gaps(self):
        """Number the messages from 0 on, as Asterisk does when a mailbox is closed; each keeps its sound throughout."""
        found = {number: files for number, files in self.files().items() if "txt" in files}
        for number, (before, files) in enumerate(sorted(found.items())):
            if number == before:
                continue
            text = files.pop("txt")
            for suffix, path in files.items():
                target = self.named(number, suffix)
                with suppress(FileNotFoundError):
                    os.unlink(target)
                os.link(path, target)
            os.rename(text, self.named(number, "txt"))
            for path in files.values():
                os.unlink(path)

    def named(self, number, suffix):
        """The path of a message's file."""
        return os.path.join(self.path, f"msg{number:04d}.{suffix}")

    def recover(self):
        """Complete what this program was ended in, if it was; returns whether it was."""
        try:
            ours = os.path.samefile(self.mark, self.lock_file)
        except FileNotFoundError:
            return False
        if ours:
            self.remove_rests()
            self.close_gaps()
            self.unlock()
        return ours


def left_at(path):
    """When a message was left, in seconds since 1970; without a time in its file, when that was written."""
    try:
        with open(path, "rb") as stream:
            found = re.search(rb"(?m)^origtime=(\d+)\s*$", stream.read())
        return int(found.group(1)) if found and int(found.group(1)) else os.stat(path).st_mtime
    except FileNotFoundError:
        return time.time()


def mailbox_is_open():
    """Whether somebody listens to voicemail, or may do so."""
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.settimeout(ANSWER)
        try:
            probe.connect(SOCKET)
        except (FileNotFoundError, ConnectionRefusedError):
            return False  # Asterisk does not run.
        except OSError:
            return True
    try:
        shown = subprocess.run(
            [ASTERISK, "-rx", "core show channels concise"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ANSWER,
            check=True,
        ).stdout
    except (subprocess.SubprocessError, OSError):
        return True
    return re.search(rb"(?mi)^[^!]*(![^!]*){4}!(voicemailmain|voicemailplaymsg)!", shown) is not None


def folders(directory):
    """The folders with messages of all mailboxes: CONTEXT/NUMBER/FOLDER."""
    found = []
    for place, names, _files in os.walk(directory):
        depth = os.path.relpath(place, directory).count(os.sep) if place != directory else -1
        names[:] = sorted(name for name in names if not name.startswith("."))
        if depth == 1:
            found += [os.path.join(place, name) for name in names if name not in OTHERS]
            names[:] = []
    return [Folder(path) for path in found if not os.path.islink(path)]


def remove_messages(directory, limit):
    """Remove the messages that were left before a time; returns their number, what is busy, and what failed."""
    count, failed, waiting, deadline = 0, [], folders(directory), time.monotonic() + PATIENCE
    while True:
        busy = []
        for folder in waiting:
            try:
                count += folder.remove(limit)
            except BusyError as problem:
                busy.append((folder, problem))
            except FileNotFoundError:
                pass  # a mailbox that is no longer described
            except OSError as problem:
                failed.append(f"Messages cannot be removed ({reason(problem)})")
        waiting = [folder for folder, _problem in busy]
        if not waiting or time.monotonic() >= deadline:
            return count, sorted({reason(problem) for _folder, problem in busy}), failed
        time.sleep(PAUSE)


def remove_records(settings, days):
    """Remove the records of this exchange from PostgreSQL; returns the numbers by table."""
    if psycopg2 is None:
        raise OSError("python3-psycopg2 is not installed")
    options = "-c statement_timeout=60000 -c lock_timeout=5000 -c timezone=UTC"
    login = {name: settings[name] for name in ("host", "port", "dbname", "user", "sslmode", "passfile")}
    connection = psycopg2.connect(connect_timeout=10, application_name="labredes-retention", options=options, **login)
    counts = {}
    with closing(connection):
        connection.autocommit = True
        cursor = connection.cursor()
        for name, date in ((settings["table"], "calldate"), ("cel", "eventtime")):
            table, counts[name] = extensions.quote_ident(name, connection), 0
            cursor.execute("SELECT to_regclass(%s)", (table,))
            if cursor.fetchone()[0] is None:
                continue
            # Its own alone, since several exchanges with other limits may share the table.
            statement = (
                f"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table}"
                f" WHERE {date} < now() AT TIME ZONE 'UTC' - make_interval(days => %s)"
                f" AND left(uniqueid, length(%s)) = %s LIMIT {BATCH}))"
            )
            while True:
                cursor.execute(statement, (days, settings["prefix"], settings["prefix"]))
                if not cursor.rowcount:
                    break
                counts[name] += cursor.rowcount
    return counts


def run(configuration):
    """Remove what is too old; returns the exit code."""
    removed, problems, now = {}, [], time.time()
    recordings, messages, records = (configuration[name] for name in ("recordings", "messages", "records"))
    try:
        if int(recordings["days"]):
            limit = now - int(recordings["days"]) * DAY
            removed["recordings"] = remove_recordings(recordings["directories"].split(), limit)
    except OSError as problem:
        problems.append(f"Recordings cannot be removed ({reason(problem)})")
    try:
        if int(messages["days"]):
            limit = now - int(messages["days"]) * DAY
            removed["messages"], busy, failed = remove_messages(messages["directory"], limit)
            problems += failed
            for sentence in busy:
                log(WARNING, f"Old messages are left for the next time: {sentence}")
    except OSError as problem:
        problems.append(f"Messages cannot be removed ({reason(problem)})")
    try:
        if int(records["days"]):
            counts = remove_records(records, int(records["days"]))
            removed["channel events"] = counts.pop("cel")
            removed["call records"] = sum(counts.values())
    except (PostgresError, OSError) as problem:
        problems.append(f"Call records cannot be removed ({reason(problem)})")
    if any(removed.values()):
        log(NOTICE, "Removed " + ", ".join(f"{number} {name}" for name, number in removed.items() if number))
    for sentence in problems:
        log(ERROR, sentence)
    return 1 if problems else 0


def main(arguments=None):
    """Run a command."""
    parser = argparse.ArgumentParser(description="Removes what is older than the exchange is to keep it.")
    parser.add_argument("command", choices=["run", "recover"])
    parser.add_argument("--config", default=CONFIGURATION)
    options = parser.parse_args(arguments)
    configuration = configparser.ConfigParser(interpolation=None)
    with open(options.config) as stream:
        configuration.read_file(stream)
    if options.command == "run":
        return run(configuration)
    # After this program was killed: its lock would keep Asterisk from storing messages.
    for folder in folders(configuration["messages"]["directory"]):
        if folder.recover():
            log(WARNING, f"{folder.path} was left locked, and is open again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
