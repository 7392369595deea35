#!/usr/bin/python3
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Copies the data of the exchange to a repository of restic, as an archive that playbook restore.yml reads.

The repository and its password come from a file of root's alone, and reach restic through its environment. Runs on
Python 3.6.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time

SETTINGS = "/etc/labredes-restic/settings.json"
SECRETS = "/etc/labredes-restic/secrets.json"
STATUS = "/var/lib/labredes-restic/status.json"
CACHE = "/var/cache/labredes-restic"
ARCHIVE = "archive.tar"  # its name in the repository, always the same
DAY = 86400
LOCKED = 3600  # seconds that another exchange may lock the repository for, as when it removes old copies
RETRY = 20  # seconds between two attempts

# The files of the collection, beside this one.
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from ansible_collections.labredes.pbx.plugins.module_utils import exchange_archive, exchange_data  # noqa: E402
from ansible_collections.labredes.pbx.plugins.module_utils.records_dump import (  # noqa: E402
    DumpError,
    MissingTableError,
    Records,
)


class CopyError(Exception):
    """What went wrong, as one sentence without its full stop."""


def read(path):
    """The content of a file of JSON."""
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


class Repository:
    """The repository; secrets: restic's environment."""

    def __init__(self, secrets):
        self.secrets = secrets
        self.environment = dict(os.environ, HOME=os.path.expanduser("~"), XDG_CACHE_HOME=CACHE, **secrets)

    def run(self, *arguments, **options):
        """Run restic to its end, once the repository is not locked any more; CopyError if it fails."""
        deadline = time.monotonic() + LOCKED
        done = self.attempt(*arguments, **options)
        while done.returncode and b"already locked" in done.stderr and time.monotonic() < deadline:
            time.sleep(RETRY)
            done = self.attempt(*arguments, **options)
        if done.returncode:
            raise CopyError(f"restic {arguments[0]} ended with {done.returncode} ({self.complaint(done)})")

    def attempt(self, *arguments, output=subprocess.PIPE):
        """Run restic to its end."""
        command = ["restic"] + list(arguments)
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=CACHE,
            check=False,
        )

    def complaint(self, done):
        """The first line that restic calls fatal, otherwise its last one, without secrets."""
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()] or ["no reason"]
        line = ([line for line in lines if line.startswith("Fatal: ")] or lines[-1:])[0]
        for value in sorted(self.secrets.values(), key=len, reverse=True):
            line = line.replace(value, "***") if len(value) > 3 else line
        return " ".join(line.split()).rstrip(".")


def note(**facts):
    """Add facts to the status file, which everybody may read."""
    status = dict(status_of(), **facts)
    with open(STATUS + ".new", "w", encoding="utf-8") as stream:
        json.dump(status, stream)
    os.chmod(stream.name, 0o644)
    os.rename(stream.name, STATUS)


def status_of():
    """The facts of the status file."""
    try:
        return read(STATUS)
    except (OSError, ValueError):
        return {}


def prepare(repository):
    """Make the repository unless there is one, and prove that it opens; returns whether it is new."""
    opened = repository.attempt("cat", "config")
    if opened.returncode:
        made = repository.attempt("init")
        if made.returncode:
            # Where one is there, the first answer says why it does not open.
            said = repository.complaint(opened if b"already" in made.stderr else made)
            raise CopyError(
                f"the repository does not open ({said}); check backup_restic_repository, backup_restic_environment and"
                " the secret restic_password"
            )
    if opened.returncode or "since" not in status_of():
        note(since=int(time.time()))
    return bool(opened.returncode)


def dump_records(database, path):
    """Dump the tables, not compressed, so that the next copy shares most of them with this one.

    Returns the call records, and the number of channel events, of which there may be no table.
    """
    tables = ["--table=" + name for name in (database["table"], database["events"])]
    command = ["pg_dump", "--format=custom", "--compress=0", "--no-password"] + tables
    done = subprocess.run(
        command + ["--file=" + path],
        env=dict(os.environ, PGCONNECT_TIMEOUT="30", **database["environment"]),
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.decode("utf-8", "replace").splitlines() or ["no reason"])[0].rstrip(".")
        raise CopyError(f"the call records cannot be dumped ({reason})")
    records = Records(path, database["table"])
    while records.next_row():
        pass
    try:
        events = Records(path, database["events"], "eventtime")
        while events.next_row():
            pass
    except MissingTableError:
        return records, 0
    return records, events.count


def digest(path):
    """The SHA-256 of a file."""
    with open(path, "rb") as stream:
        return exchange_data.digest(stream)


def make_archive(settings, work):
    """Write the archive; returns its manifest. A part is removed once the archive has it, to save space."""
    members = ["exchange.tar", "records.pgc"]
    # The journal first: a record that has left it since is in the dump.
    counts = exchange_archive.write(os.path.join(work, members[0]), settings["content"])
    records, events = dump_records(settings["database"], os.path.join(work, members[1]))
    show = ["dpkg-query", "--show", "--showformat=${Version}", settings["content"]["package"]]
    release, _plus, key = subprocess.check_output(show).decode().partition("+pbx.")
    manifest = {
        "format": settings["format"],
        "host": settings["host"],
        "date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "release": release[2:] if release.startswith("1:") else release,
        "package_key": key,
        "counts": dict(counts, records=records.count, events=events),
        "latest_record": records.latest,
        "members": {name: digest(os.path.join(work, name)) for name in members},
    }
    with open(os.path.join(work, "manifest.json"), "w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=4)
    with tarfile.open(os.path.join(CACHE, ARCHIVE), "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ["manifest.json"] + members:
            archive.add(os.path.join(work, name), name)
            os.unlink(os.path.join(work, name))
    return manifest


def copy(settings, repository):
    """Make a copy, remove those that are too old, and check the repository; returns what it did."""
    began, work, path = time.time(), os.path.join(CACHE, "new"), os.path.join(CACHE, ARCHIVE)
    # A run that was killed may have left it.
    shutil.rmtree(work, ignore_errors=True)
    os.mkdir(work, 0o700)
    try:
        manifest = make_archive(settings, work)
        # Removes only locks whose process has ended.
        repository.run("unlock")
        repository.run("backup", "--quiet", "--tag", settings["tag"], ARCHIVE)
        note(copied=int(time.time()), date=manifest["date"])
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if os.path.exists(path):
            os.unlink(path)
    kept = [word for name, number in sorted(settings["keep"].items()) for word in ("--keep-" + name, str(number))]
    if kept:
        repository.run("forget", "--quiet", "--tag", settings["tag"], "--prune", *kept)
    parts = int(settings["check_parts"])
    repository.run("check", *([f"--read-data-subset={began // DAY % parts + 1:.0f}/{parts}"] if parts else []))
    note(checked=int(time.time()), seconds=round(time.time() - began), problem="")
    counts = manifest["counts"]
    return "Copied {} call records and {} messages.".format(counts["records"], sum(counts["messages"].values()))


def fetch(repository, tag, snapshot, directory):
    """Write the archive of a copy to a directory and give it to its owner; returns its manifest."""
    path = os.path.join(directory, ARCHIVE)
    with open(path, "wb") as stream:
        repository.run("dump", "--tag", tag, snapshot, "/" + ARCHIVE, output=stream)
    owner = os.stat(directory)
    os.chown(path, owner.st_uid, owner.st_gid)
    with tarfile.open(path) as archive:
        return json.loads(archive.extractfile("manifest.json").read().decode())


def age(hours):
    """Fail where no copy was made and checked for so many hours; returns what is known."""
    status = status_of()
    last = min(status.get("copied", 0), status.get("checked", 0))
    if time.time() - (last or status.get("since", 0)) > hours * 3600:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(last)) if last else "never"
        raise CopyError(
            f"the last copy off the site was made and checked: {when}; see journalctl --unit=labredes-restic, and run"
            " systemctl start labredes-restic"
        )
    return json.dumps(status)


def parse(arguments):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Copies of the exchange in a repository of restic.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    for name, what in (
        ("prepare", "make the repository, or prove that it opens"),
        ("copy", "make a copy now; systemctl start labredes-restic does it"),
        ("age", "fail where the last copy is too old"),
        ("fetch", "write the archive of a copy to a directory"),
        ("restic", "run restic on the repository, for example: restic snapshots"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        if name == "fetch":
            for word in ("tag", "snapshot", "directory"):
                command.add_argument(word)
        if name == "restic":
            command.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser.parse_args(arguments)


def perform(options):
    """Run a command; returns its exit code."""
    settings = read(SETTINGS)
    if options.command == "age":
        print(age(int(settings["warn_hours"])))
        return 0
    for path, mode in ((CACHE, 0o700), (os.path.dirname(STATUS), 0o755)):
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
    repository = Repository(read(SECRETS))
    if options.command == "restic":
        return subprocess.call(["restic"] + options.arguments, env=repository.environment)
    if options.command == "prepare":
        print("changed: a new repository" if prepare(repository) else "the repository opens")
    elif options.command == "copy":
        print(copy(settings, repository))
    else:
        print(json.dumps(fetch(repository, options.tag, options.snapshot, options.directory)))
    return 0


def main(arguments=None):
    """Run a command, and report in one sentence what went wrong."""
    options = parse(arguments)
    os.umask(0o077)
    try:
        return perform(options)
    except (
        CopyError,
        DumpError,
        exchange_data.DataError,
        OSError,
        KeyError,
        ValueError,
        sqlite3.Error,
        subprocess.SubprocessError,
        tarfile.TarError,
    ) as problem:
        sentence = " ".join(str(problem).split()).rstrip(".")
        sentence = sentence[:1].upper() + sentence[1:] + "."
        if options.command == "copy" and os.path.isdir(os.path.dirname(STATUS)):
            note(problem=sentence)
        print("<3>" + sentence, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
