#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module labredes.pbx.exchange_backup: see DOCUMENTATION."""

DOCUMENTATION = r"""
module: exchange_backup
short_description: Write the data of a running exchange to one tar file
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Writes the files below some directories, some single files, and consistent copies of Asterisk's database and of the
    journal of call records to C(exchange.tar). Asterisk goes on, and waits for nothing.
  - A message that is moved from one folder of its mailbox to another meanwhile is in the file once.
options:
  directory:
    description: Directory for C(exchange.tar), which then belongs to the directory's owner.
    type: path
    required: true
  trees:
    description: The directories by their names in the file. Of C(voicemail) each mailbox is read at one moment.
    type: dict
    required: true
  files: {description: The single files by their names., type: dict, default: {}}
  astdb: {description: Asterisk's database., type: path, required: true}
  journal: {description: The journal of call records., type: path, required: true}
  package: {description: "Debian package whose files are left out, such as Asterisk's prompts.", type: str, default: ""}
attributes:
  check_mode: {support: full, description: Writes nothing and reports a change.}
"""

EXAMPLES = r"""
- name: Collect the data
  labredes.pbx.exchange_backup:
    directory: /var/tmp/backup
    trees: {voicemail: /var/spool/asterisk/voicemail}
    astdb: /var/lib/asterisk/astdb.sqlite3
    journal: /var/lib/labredes-cdr/journal.db
"""

RETURN = r"""
counts:
  description:
    - C(messages) by mailbox, and the numbers of C(greetings), C(pins), C(forwards), values of the database (C(values)),
      C(waiting) and C(rejected) records, and files by the name of their directory.
  returned: success
  type: dict
package_version: {description: The installed version of the package., returned: success, type: str}
"""

import os
import shutil
import sqlite3
import tarfile

from ansible.module_utils.basic import AnsibleModule
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


def add_voicemail(archive, directory):
    """Add all mailboxes; returns the names of their files."""
    place, names = os.path.join(os.path.dirname(directory), ".labredes-backup"), []
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


def write(module, path):
    """Write the tar file; returns the counts."""
    parameters, work = module.params, path + ".d"
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


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "trees": {"type": "dict", "required": True},
            "files": {"type": "dict", "default": {}},
            "astdb": {"type": "path", "required": True},
            "journal": {"type": "path", "required": True},
            "package": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, counts={}, package_version="")
    directory = module.params["directory"]
    path = os.path.join(directory, "exchange.tar")
    os.umask(0o077)
    try:
        counts = write(module, path)
        owner = os.stat(directory)
        os.chown(path, owner.st_uid, owner.st_gid)
    except (data.DataError, OSError, sqlite3.Error) as problem:
        module.fail_json(msg=f"The data of the exchange cannot be read: {str(problem).rstrip('.')}.")
    shown = ["dpkg-query", "--show", "--showformat=${Version}", module.params["package"]]
    version = module.run_command(shown)[1] if module.params["package"] else ""
    module.exit_json(changed=True, counts=counts, package_version=version)


if __name__ == "__main__":
    main()
