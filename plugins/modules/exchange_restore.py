#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module labredes.pbx.exchange_restore: see DOCUMENTATION."""

DOCUMENTATION = r"""
module: exchange_restore
short_description: Put back what exchange_backup has written, without replacing what is newer
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Adds messages that no folder of their mailbox has, files that are missing, values that Asterisk's database lacks,
    and call records that waited in the journal. A greeting, a PIN or another file is replaced only by a later one.
    Nothing is deleted, and what is there already is not added again.
  - Asterisk must not run, except with O(compare) and in check mode.
options:
  archive: {description: The tar file on this host., type: path, required: true}
  trees: {description: The directories by their names in the file., type: dict, required: true}
  files:
    description: The single files by their names. These are replaced whatever their age.
    type: dict
    default: {}
  witnesses:
    description:
      - Single files by their names. A host that has all of them as the archive has is the one that it was made of, so
        its O(files) may have been renewed since, and stay unless O(replace_newer).
    type: dict
    default: {}
  astdb: {description: Asterisk's database; without it none is looked at., type: path}
  journal: {description: The journal of call records; without it none is looked at., type: path}
  numbers:
    description: The phones that the inventory describes. Mailboxes and forwards of others are left out and reported.
    type: list
    elements: str
    required: true
  replace_newer:
    description: Replace also files that are newer on the host, and values of the database that differ.
    type: bool
    default: false
  compare: {description: "Change nothing, and report what would be.", type: bool, default: false}
attributes:
  check_mode: {support: full, description: Compares alone.}
"""

EXAMPLES = r"""
- name: Put the data back
  labredes.pbx.exchange_restore:
    archive: /var/tmp/restore/exchange.tar
    trees: {voicemail: /var/spool/asterisk/voicemail}
    astdb: /var/lib/asterisk/astdb.sqlite3
    journal: /var/lib/labredes-cdr/journal.db
    numbers: ["6001", "6002"]
"""

RETURN = r"""
restored: {description: What is added or replaced., returned: success, type: list, elements: str}
newer: {description: What the host has in a newer or another form., returned: success, type: list, elements: str}
left_out: {description: What belongs to other phones., returned: success, type: list, elements: str}
"""

import grp
import os
import pwd
import shutil
import sqlite3
import tarfile
import tempfile
from contextlib import closing

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.labredes.pbx.plugins.module_utils import exchange_data as data


class Plan:
    """What differs between the archive and the host."""

    def __init__(self, module, archive, work):
        self.parameters, self.archive, self.work = module.params, archive, work
        self.replace_newer = module.params["replace_newer"]
        self.restored, self.newer, self.left_out, self.writes = [], [], [], []
        self.members = {member.name: member for member in archive if member.isfile()}
        self.directories = {member.name: member for member in archive if member.isdir()}

    def compare(self):
        """Look at everything."""
        voicemail = {}  # type: dict[str, list]
        single = self.parameters["files"]
        for name, member in sorted(self.members.items()):
            tree, _slash, rest = name.partition("/")
            if tree == "voicemail" and tree in self.parameters["trees"]:
                voicemail.setdefault("/".join(rest.split("/")[:2]), []).append((rest, member))
            elif tree in self.parameters["trees"] and rest:
                self._file(member, self._path(tree, rest))
        for mailbox, files in sorted(voicemail.items()):
            self._mailbox(mailbox, files)
        if self.parameters["astdb"]:
            self._astdb()
        if self.parameters["journal"]:
            self._journal()
        if self.replace_newer or not self._witnessed():
            for name in sorted(set(single) & set(self.members)):
                path = single[name]
                if not (os.path.isfile(path) and self._same(self.members[name], path)):
                    self._put(self.members[name], path)

    def _witnessed(self):
        """Whether this host is the one that the archive was made of."""
        found = [(self.members.get(name), path) for name, path in self.parameters["witnesses"].items()]
        known = [(member, path) for member, path in found if member]
        return bool(known) and all(os.path.isfile(path) and self._same(member, path) for member, path in known)

    def apply(self):
        """Do what compare() has found."""
        for write in self.writes:
            write()

    def _path(self, tree, rest):
        """Where a member goes; it cannot leave its directory."""
        if ".." in rest.split("/") or os.path.isabs(rest):
            raise data.DataError(f"the archive has a path that leaves its directory, {tree}/{rest}")
        return os.path.join(self.parameters["trees"][tree], rest)

    def _same(self, member, path):
        """Whether a file has the content of a member."""
        if os.path.getsize(path) != member.size:
            return False
        with open(path, "rb") as stream, self.archive.extractfile(member) as other:
            return data.digest(stream) == data.digest(other)

    def _file(self, member, path):
        """A file that is replaced only by a later one."""
        if not os.path.lexists(path):
            self._put(member, path)
        elif os.path.isfile(path) and not self._same(member, path):
            if self.replace_newer or int(os.stat(path).st_mtime) < int(member.mtime):
                self._put(member, path)
            else:
                self.newer.append(path)

    def _put(self, member, path):
        self.restored.append(path)
        self.writes.append(lambda: self._write(member, path))

    def _mailbox(self, mailbox, files):
        """The greetings and the PIN of a mailbox, and those of its messages that no folder has."""
        number = mailbox.split("/")[-1]
        if number not in self.parameters["numbers"]:
            self.left_out.append(f"mailbox {number}")
            return
        present = set()
        messages = {}  # type: dict[tuple, list]
        last = {}  # type: dict[str, int]
        place = os.path.join(self.parameters["trees"]["voicemail"], mailbox)
        for name in data.files_below(place):
            folder, _slash, file = name.rpartition("/")
            found = data.MESSAGE.fullmatch(file) if folder else None
            if found:
                last[folder] = max(last.get(folder, -1), int(found.group(1)[3:]))
                if found.group(2) == "txt":
                    with open(os.path.join(place, name), "rb") as stream:
                        present.add(data.message_identity(stream.read()))
        for rest, member in files:
            name = rest[len(mailbox) + 1 :]
            folder, _slash, file = name.rpartition("/")
            found = data.MESSAGE.fullmatch(file) if folder else None
            if found:
                messages.setdefault((folder, found.group(1)), []).append((found.group(2), member))
            else:
                self._file(member, self._path("voicemail", rest))
        for (folder, _message), parts in sorted(messages.items()):
            text = dict(parts).get("txt")
            identity = data.message_identity(self.archive.extractfile(text).read()) if text else None
            if text is None or identity in present:
                continue
            present.add(identity)
            last[folder] = last.get(folder, -1) + 1
            # The text comes last: with it Asterisk takes the message for whole.
            for suffix, member in sorted(parts, key=lambda part: part[0] == "txt"):
                self._put(member, self._path("voicemail", f"{mailbox}/{folder}/msg{last[folder]:04d}.{suffix}"))

    def _extracted(self, name):
        """A database of the archive as a file."""
        if name not in self.members:
            raise data.DataError(f"the archive has no {name}")
        path = os.path.join(self.work, name)
        with open(path, "wb") as target, self.archive.extractfile(self.members[name]) as source:
            shutil.copyfileobj(source, target)
        data.check_database(path)
        return path

    def _astdb(self):
        """The values that Asterisk's database lacks."""
        copy = os.path.join(self.work, "present.sqlite3")
        data.copy_astdb(self.parameters["astdb"], copy)
        present, wanted = data.astdb_values(copy), {}
        registered = {key.partition(b";")[0] for key in present if key.startswith(b"/registrar/contact/")}
        for key, value in sorted(data.astdb_values(self._extracted("astdb.sqlite3")).items()):
            shown = key.decode("utf-8", "replace")
            forward = data.FORWARD.match(shown)
            if forward and not {forward.group(1), value.decode("utf-8", "replace")} <= set(self.parameters["numbers"]):
                self.left_out.append(f"forward of {forward.group(1)}")
            elif key.startswith(b"/registrar/contact/"):
                # A phone that has registered again is not where it was.
                if key not in present and key.partition(b";")[0] not in registered:
                    wanted[key] = value
            elif key not in present or (present[key] != value and self.replace_newer):
                wanted[key] = value
            elif present[key] != value:
                self.newer.append(f"database {shown}")
        if wanted:
            self.restored += ["database " + key.decode("utf-8", "replace") for key in wanted]
            self.writes.append(lambda: self._write_astdb(wanted))

    def _write_astdb(self, wanted):
        with closing(sqlite3.connect(self.parameters["astdb"], timeout=10)) as database, database:
            database.executemany(
                "INSERT OR REPLACE INTO astdb (key, value) VALUES (CAST(? AS TEXT), CAST(? AS TEXT))",
                sorted(wanted.items()),
            )

    def _journal(self):
        """The records that waited; the journal itself notes which archives it has had."""
        path = self._extracted("journal.db")
        with open(path, "rb") as stream:
            name = data.digest(stream)
        with closing(sqlite3.connect(self.parameters["journal"], timeout=10, isolation_level=None)) as journal:
            known = journal.execute("SELECT 1 FROM sqlite_master WHERE name = 'restored'").fetchone()
            if known and journal.execute("SELECT 1 FROM restored WHERE archive = ?", (name,)).fetchone():
                return
        counts = data.journal_counts(path)
        if counts["waiting"] or counts["rejected"]:
            self.restored.append("{waiting} waiting and {rejected} rejected records in the journal".format(**counts))
            self.writes.append(lambda: self._write_journal(path, name))

    def _write_journal(self, path, name):
        with closing(sqlite3.connect(self.parameters["journal"], timeout=10, isolation_level=None)) as journal:
            journal.text_factory = bytes
            journal.execute("ATTACH ? AS old", (path,))
            journal.execute("BEGIN IMMEDIATE")
            journal.execute("CREATE TABLE IF NOT EXISTS main.restored (archive TEXT PRIMARY KEY, at TEXT)")
            journal.execute("INSERT INTO main.restored VALUES (?, datetime('now'))", (name,))
            present = [table for table, _statement in data.tables(journal)]
            for table, statement in data.tables(journal, "old"):
                if table not in present:
                    journal.execute(statement)
                rows = journal.execute(f"PRAGMA old.table_info({data.quoted(table)})").fetchall()
                # The number of a row is the new journal's own.
                columns = ", ".join(data.quoted(row[1].decode()) for row in rows if not row[5])
                journal.execute(
                    f"INSERT INTO main.{data.quoted(table)} ({columns}) SELECT {columns} FROM old.{data.quoted(table)}"
                    " ORDER BY rowid"
                )
            journal.execute("COMMIT")

    def _write(self, member, path):
        """Write a member beside its place, with its owner and mode, then rename it."""
        owner = account(member)
        self._make_directory(os.path.dirname(path), os.path.dirname(member.name), owner)
        handle, draft = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".labredes-")
        try:
            with os.fdopen(handle, "wb") as target, self.archive.extractfile(member) as source:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
            os.utime(draft, (member.mtime, member.mtime))
            os.chown(draft, *owner)
            os.chmod(draft, member.mode & 0o777)
            os.rename(draft, path)
        except BaseException:
            os.unlink(draft)
            raise

    def _make_directory(self, path, name, owner):
        """Create a directory and those above it, as they are in the archive."""
        if os.path.isdir(path):
            return
        self._make_directory(os.path.dirname(path), os.path.dirname(name), owner)
        member = self.directories.get(name)
        os.mkdir(path, 0o700)
        os.chown(path, *(account(member) if member else owner))
        os.chmod(path, member.mode & 0o7777 if member else 0o750)


def account(member):
    """The user and group that a member has on this host, by their names."""
    try:
        return pwd.getpwnam(member.uname).pw_uid, grp.getgrnam(member.gname).gr_gid
    except KeyError:
        raise data.DataError(
            f"{member.name} belongs to {member.uname}:{member.gname}, which this host does not have"
        ) from None


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "trees": {"type": "dict", "required": True},
            "files": {"type": "dict", "default": {}},
            "witnesses": {"type": "dict", "default": {}},
            "astdb": {"type": "path"},
            "journal": {"type": "path"},
            "numbers": {"type": "list", "elements": "str", "required": True},
            "replace_newer": {"type": "bool", "default": False},
            "compare": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    for name in ("astdb", "journal"):
        if module.params[name] and not os.path.isfile(module.params[name]):
            module.fail_json(msg=f"{module.params[name]} is missing; run site.yml first, then restore.")
    work = tempfile.mkdtemp(dir=module.tmpdir)
    try:
        with tarfile.open(module.params["archive"]) as archive:
            plan = Plan(module, archive, work)
            plan.compare()
            if not (module.params["compare"] or module.check_mode):
                plan.apply()
    except (data.DataError, OSError, tarfile.TarError, sqlite3.Error) as problem:
        module.fail_json(msg=f"The data cannot be restored: {str(problem).rstrip('.')}.")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    diff = {"prepared": "".join(f"{line}\n" for line in plan.restored)}
    module.exit_json(
        changed=bool(plan.restored), restored=plan.restored, newer=plan.newer, left_out=plan.left_out, diff=diff
    )


if __name__ == "__main__":
    main()
