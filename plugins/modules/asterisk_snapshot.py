#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module labredes.pbx.asterisk_snapshot: see DOCUMENTATION."""

DOCUMENTATION = r"""
module: asterisk_snapshot
short_description: Keep what an upgrade of Asterisk replaces, and bring it back
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - The snapshot is the directory C(previous) below O(directory), with package, files and Asterisk's database. The file
    C(begun) beside it says that an upgrade has begun and has not passed its verification yet.
  - Asterisk must not run while a snapshot is taken or restored.
options:
  state:
    description:
      - V(taken) makes the snapshot, unless an upgrade was interrupted, whose snapshot stays.
      - V(finished) ends an upgrade that has begun, and notes the files as they are now.
      - V(checked) fails where going back is not safe.
      - V(restored) puts the files back. The package is not installed by this.
      - V(removed) removes the snapshot.
    type: str
    choices: [taken, finished, checked, restored, removed]
    required: true
  directory: {description: Where it is kept., type: path, default: /var/lib/labredes/upgrade}
  version: {description: "With V(taken), version of the installed package.", type: str, default: ""}
  package:
    description: That package on the host; with V(removed), where that of the snapshot stays.
    type: path
  files: {description: "Files and directories that belong to the snapshot.", type: list, elements: path, default: []}
  watched:
    description: "Further files that are compared by V(checked): where they differ, the snapshot does not fit."
    type: list
    elements: path
    default: []
  astdb: {description: Asterisk's database., type: path, default: /var/lib/asterisk/astdb.sqlite3}
  with_astdb: {description: Whether V(restored) puts the database back as well., type: bool, default: false}
attributes:
  check_mode: {support: full, description: Changes nothing.}
"""

EXAMPLES = r"""
- name: Keep what the upgrade replaces
  labredes.pbx.asterisk_snapshot:
    state: taken
    version: 1:22.10.1+pbx.0123456789ab
    package: /var/lib/labredes/packages/labredes-asterisk_22.10.1+pbx.0123456789ab.deb
    files: [/etc/asterisk, /etc/odbc.ini]
"""

RETURN = r"""
version: {description: Version of the package in the snapshot., returned: success, type: str}
interrupted: {description: Whether an upgrade has begun and not finished., returned: success, type: bool}
"""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.labredes.pbx.plugins.module_utils import exchange_data as data


class SnapshotError(Exception):
    """Why it cannot be done, as one sentence without its full stop."""


class Snapshot:
    """The snapshot of a host."""

    def __init__(self, parameters):
        self.parameters, top = parameters, parameters["directory"]
        self.top, self.previous, self.begun = top, os.path.join(top, "previous"), os.path.join(top, "begun")
        self.astdb = parameters["astdb"]

    @property
    def exists(self):
        """Whether there is one."""
        return os.path.isfile(os.path.join(self.previous, "version"))

    @property
    def interrupted(self):
        """Whether an upgrade has begun and not finished."""
        return self.exists and os.path.exists(self.begun)

    @property
    def version(self):
        """The version of its package; empty if there is none."""
        if not self.exists:
            return ""
        with open(os.path.join(self.previous, "version")) as stream:
            return stream.read()

    def taken(self):
        """Make it under another name first, so that a run that is killed leaves a whole one or none."""
        if self.interrupted:
            return False
        if not whole(self.parameters["package"]):
            raise SnapshotError(f"the package {self.parameters['package']}, the way back, is missing or damaged")
        part, old = self.previous + ".part", self.previous + ".old"
        os.makedirs(self.top, mode=0o700, exist_ok=True)
        for path in (part, old):
            shutil.rmtree(path, ignore_errors=True)
        os.mkdir(part, 0o700)
        link_or_copy(self.parameters["package"], os.path.join(part, "package.deb"))
        for path in self.parameters["files"]:
            copy(path, part + "/files" + path)
        copy(self.astdb, os.path.join(part, "astdb.sqlite3"))
        with open(os.path.join(part, "version"), "w") as stream:
            stream.write(self.parameters["version"])
        os.sync()
        if os.path.isdir(self.previous):
            os.rename(self.previous, old)
        os.rename(part, self.previous)
        write(self.begun, self.parameters["version"])
        shutil.rmtree(old, ignore_errors=True)
        return True

    def finished(self):
        """Note the files that the new version runs with."""
        if not self.interrupted:
            return False
        write(os.path.join(self.previous, "after.json"), json.dumps(self._digests()))
        os.unlink(self.begun)
        return True

    def checked(self):
        """Fail where the former version would not find what it needs, or something newer would be lost."""
        if not self.exists:
            raise SnapshotError(
                "there is no earlier version to go back to; only playbook upgrade_asterisk.yml keeps one"
            )
        package = os.path.join(self.previous, "package.deb")
        if not whole(package):
            raise SnapshotError(
                f"the earlier package {package} is missing or damaged; set asterisk_package_release to the earlier "
                "release and run site.yml, which builds it again"
            )
        problem = database_problem(self.astdb, self.top)
        if problem:
            raise SnapshotError(
                f"{self.astdb} cannot be read by the earlier version ({problem}); copy {self.previous}/astdb.sqlite3 "
                "over it, or restore a backup, then run again"
            )
        newer = self._newer()
        if newer:
            raise SnapshotError(
                f"the configuration has changed since the upgrade ({', '.join(newer[:5])}), and going back would lose "
                "that; set asterisk_package_release to the earlier release and run site.yml, which writes the same "
                "description for it"
            )
        return False

    def restored(self):
        """Put the files back; one that is interrupted is repeated."""
        if not os.path.exists(self.begun):
            write(self.begun, self.version)
        for path in self.parameters["files"]:
            kept, draft = self.previous + "/files" + path, path + ".labredes-part"
            remove(draft)
            copy(kept, draft)
            if os.path.isdir(path):
                remove(path + ".labredes-old")
                os.rename(path, path + ".labredes-old")
            if os.path.lexists(draft):
                os.rename(draft, path)
            else:
                remove(path)
            remove(path + ".labredes-old")
        kept = os.path.join(self.previous, "astdb.sqlite3")
        if self.parameters["with_astdb"] and os.path.exists(kept):
            remove(self.astdb + "-journal")
            copy(kept, self.astdb + ".labredes-part")
            os.rename(self.astdb + ".labredes-part", self.astdb)
        os.sync()
        return True

    def removed(self):
        """Remove it, and what says that an upgrade has begun; its package stays under the name that it is given."""
        package = self.parameters["package"]
        if package and not os.path.exists(package) and os.path.exists(self.previous + "/package.deb"):
            os.makedirs(os.path.dirname(package), exist_ok=True)
            link_or_copy(self.previous + "/package.deb", package)
        found = os.path.exists(self.previous) or os.path.exists(self.begun)
        for path in (self.begun, self.previous, self.previous + ".part", self.previous + ".old"):
            remove(path)
        return found

    def _newer(self):
        """The files that have changed since the upgrade has finished; of one that was interrupted, none has."""
        if self.interrupted:
            return []
        try:
            with open(os.path.join(self.previous, "after.json")) as stream:
                after = json.load(stream)
        except (OSError, ValueError):
            return ["it is unknown which files the upgrade has left"]
        now = self._digests()
        return sorted(path for path in set(after) | set(now) if after.get(path) != now.get(path))

    def _digests(self):
        """The digest of each file, by its path."""
        found = {}
        for path in self.parameters["files"] + self.parameters["watched"]:
            below = [os.path.join(place, name) for place, _names, names in os.walk(path) for name in names]
            for name in below or [path]:
                if os.path.isfile(name):
                    with open(name, "rb") as stream:
                        found[name] = hashlib.sha256(stream.read()).hexdigest()
        return found


def remove(path):
    """Remove a file or a directory, if there is one."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def copy(source, target):
    """Copy a file or a directory, if there is one, with its owners and modes."""
    if not os.path.lexists(source):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    subprocess.check_output(["cp", "-a", source, target], stderr=subprocess.STDOUT)


def link_or_copy(source, target):
    """A second name for a file, where that is possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write(path, text):
    """Write a file that is there as a whole or not at all."""
    with open(path + ".part", "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(path + ".part", path)


def whole(package):
    """Whether a Debian package can be read to its end."""
    command = ["dpkg-deb", "--fsys-tarfile", package]
    return (
        os.path.isfile(package) and subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    )


def database_problem(path, work):
    """Why a release of Asterisk could not read its database; each since 10 has the same table. Empty if it could.

    Of a copy, since Asterisk drops what it has not committed yet where somebody reads its own.
    """
    if not os.path.exists(path):
        return ""
    os.makedirs(work, mode=0o700, exist_ok=True)
    try:
        draft = os.path.join(work, "astdb.sqlite3.part")
        data.copy_astdb(path, draft)
        with closing(sqlite3.connect(draft)) as database:
            columns = [row[1] for row in database.execute("PRAGMA table_info(astdb)")]
    except (data.DataError, sqlite3.DatabaseError) as problem:
        return str(problem)
    finally:
        remove(draft)
    return "" if columns[:2] == ["key", "value"] else f"its table astdb has columns {columns}"


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["taken", "finished", "checked", "restored", "removed"], "required": True},
            "directory": {"type": "path", "default": "/var/lib/labredes/upgrade"},
            "version": {"default": ""},
            "package": {"type": "path"},
            "files": {"type": "list", "elements": "path", "default": []},
            "watched": {"type": "list", "elements": "path", "default": []},
            "astdb": {"type": "path", "default": "/var/lib/asterisk/astdb.sqlite3"},
            "with_astdb": {"type": "bool", "default": False},
        },
        required_if=[("state", "taken", ("version", "package"))],
        supports_check_mode=True,
    )
    os.umask(0o022)
    snapshot, state = Snapshot(module.params), module.params["state"]
    result = {"version": snapshot.version, "interrupted": snapshot.interrupted}
    try:
        # A check changes nothing, so check mode has it, too.
        changed = (state == "checked" or not module.check_mode) and getattr(snapshot, state)()
    except SnapshotError as problem:
        module.fail_json(msg=f"{problem}.")
    except subprocess.CalledProcessError as problem:
        module.fail_json(msg=f"A copy has failed: {problem.output.decode('utf-8', 'replace').strip()}.")
    except OSError as problem:
        module.fail_json(msg=f"The snapshot in {module.params['directory']} has failed: {problem}.")
    module.exit_json(changed=changed, **result)


if __name__ == "__main__":
    main()
