# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Writes the data of a running exchange to one tar file, for the module exchange_backup and for the program that copies
it off the site. Runs on Python 3.6 and later.
"""

import fcntl
import os
import shutil
import tarfile
from contextlib import contextmanager

from ansible_collections.labredes.pbx.plugins.module_utils import exchange_data as data

TRIES = 20  # for a mailbox in which something changes at the moment


class Exactly:
    """A file of which exactly as many bytes are read as it had: one that is being recorded grows, or is cut."""

    def __init__(self, stream, size):
        self.stream, self.left = stream, size

    def read(self, size):
        """The next bytes, zeros after the end of the file."""
        size = min(size, self.left)
        self.left -= size
        return self.stream.read(size).ljust(size, b"\0")


def add(archive, path, name):
    """Add a file, unless it has gone; returns whether it was there."""
    try:
        with open(path, "rb") as stream:
            member = archive.gettarinfo(arcname=name, fileobj=stream)
            archive.addfile(member, Exactly(stream, member.size))
    except FileNotFoundError:
        return False
    return True


def add_directories(archive, tree, name):
    """Add a directory and those below it for their owners and modes."""
    for place, _directories, _names in data.walk(tree):
        member = archive.gettarinfo(place, os.path.normpath(os.path.join(name, os.path.relpath(place, tree))))
        archive.addfile(member)


def listing(directory):
    """The files of a mailbox with what changes when one is moved or written."""
    found = []
    for name in data.files_below(directory):
        try:
            status = os.stat(os.path.join(directory, name))
        except FileNotFoundError:
            continue
        found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def hold(mailbox, place):
    """Link the files of a mailbox as they are at one moment to another place; returns their names."""
    for _attempt in range(TRIES):
        shutil.rmtree(place, ignore_errors=True)
        before = listing(mailbox)
        for name, _inode, _size, _time in before:
            os.makedirs(os.path.dirname(os.path.join(place, name)), mode=0o700, exist_ok=True)
            try:
                os.link(os.path.join(mailbox, name), os.path.join(place, name))
            except FileNotFoundError:
                break
        if listing(mailbox) == before:
            break
    return data.files_below(place)


@contextmanager
def alone(directory):
    """Wait for another backup of the same directory; one that was killed holds nothing up."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def add_voicemail(archive, directory):
    """Add all mailboxes; returns the names of their files."""
    spool, names = os.path.dirname(directory), []
    place = os.path.join(spool, ".labredes-backup")
    with alone(spool):
        try:
            for mailbox in mailboxes(directory):
                for name in hold(os.path.join(directory, mailbox), place):
                    add(archive, os.path.join(place, name), os.path.join("voicemail", mailbox, name))
                    names.append(os.path.join(mailbox, name))
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return names


def mailboxes(directory):
    """The mailboxes below a directory, as CONTEXT/NUMBER."""
    for context in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        place = os.path.join(directory, context)
        for number in sorted(os.listdir(place)) if os.path.isdir(place) else []:
            if os.path.isdir(os.path.join(place, number)):
                yield os.path.join(context, number)


def write(path, parameters):
    """Write the tar file, by the options of the module exchange_backup; returns the counts."""
    work = path + ".d"
    counts = {}  # type: dict
    own = data.package_files(parameters["package"])
    os.mkdir(work, 0o700)
    try:
        # What Asterisk waits for least comes first.
        astdb, journal = os.path.join(work, "astdb.sqlite3"), os.path.join(work, "journal.db")
        data.copy_astdb(parameters["astdb"], astdb)
        data.copy_journal(parameters["journal"], journal)
        keys = data.astdb_values(astdb)
        forwards = [key for key in keys if data.FORWARD.match(key.decode("utf-8", "replace"))]
        counts.update(data.journal_counts(journal), values=len(keys), forwards=len(forwards))
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            add(archive, astdb, "astdb.sqlite3")
            add(archive, journal, "journal.db")
            for name, file in sorted(parameters["files"].items()):
                add(archive, file, name)
            for name, tree in sorted(parameters["trees"].items()):
                add_directories(archive, tree, name)
                if name == "voicemail":
                    counts.update(data.voicemail_counts(add_voicemail(archive, tree)))
                    continue
                files = [file for file in data.files_below(tree) if os.path.join(tree, file) not in own]
                counts[name] = sum(add(archive, os.path.join(tree, file), os.path.join(name, file)) for file in files)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return counts
