# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action of labredes.pbx.templates, which renders all files before its one call on the host; see the module."""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from itertools import zip_longest
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader
from ansible_collections.labredes.pbx.plugins.plugin_utils.facts import missing_facts
from ansible_collections.labredes.pbx.plugins.plugin_utils.shell import answer_of

ATTRIBUTES = ("owner", "group", "mode")
SHOW = "stat -c '%F|%U|%G|0%a|%n'"


def copies(item):
    """Entries for a file of the controller, or for every file below a directory but Python's caches (OSError)."""
    source, name = Path(item["from"]), item["name"]
    found = {name: source}
    if source.is_dir():
        found = {f"{name}/{path.relative_to(source).as_posix()}": path for path in source.rglob("*") if path.is_file()}
    return [
        {**item, "name": path, "base64": base64.b64encode(found[path].read_bytes()).decode()}
        for path in sorted(found)
        if "__pycache__" not in path.split("/")
    ]


def is_as_wanted(files, directories, absent, purge, lines):
    """Whether the host has what it is to have, by the lines of the look; in doubt, as for letters as mode, no.

    files and directories: their entries by path, with the owner, group and mode that each is to have.
    """
    parts = [line.replace("regular empty file|", "regular file|", 1).split("|", 4) for line in lines]
    shown = {path: attributes for *attributes, path in parts}
    if any(path in shown for path in absent):
        return False
    for kind, entries in (("regular file", files), ("directory", directories)):
        for path, item in entries.items():
            wanted = [kind, *map(item.get, ATTRIBUTES)]
            if any(one not in (None, now) for one, now in zip_longest(wanted, shown.get(path, []))):
                return False
    if any(f"{hashlib.sha256(content_of(item)).hexdigest()}  {path}" not in lines for path, item in files.items()):
        return False
    kept = {*files, *(str(above) for path in files for above in Path(path).parents)}
    return not any(path.startswith(f"{above}/") and path not in kept for above in purge for path in shown)


def content_of(item):
    """The bytes of a file."""
    return base64.b64decode(item["base64"]) if "base64" in item else item["content"].encode()


class Variables(dict):
    """Variables that the lookup copies one level deep for each template: the whole takes it longer than rendering."""

    def __deepcopy__(self, memo):
        return self.copy()


class ActionModule(ActionBase):
    """Renders every template on the controller and passes all of them to the module."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """The module's result; a template that cannot be rendered fails before the host is changed."""
        result = super().run(tmp, task_vars)
        lookup = lookup_loader.get("ansible.builtin.template", loader=self._loader, templar=self._templar)
        # Only up to ansible-core 2.18 text that looks like a list would become one.
        options = {} if hasattr(self._templar, "evaluate_expression") else {"convert_data": False}
        files, variables = [], Variables(task_vars)
        for item in self._task.args["files"]:
            if "from" in item:
                try:
                    files += copies(item)
                except OSError as error:
                    return {**result, "failed": True, "msg": f"{error.filename}: {error.strerror}"}
                continue
            if reason := missing_facts(task_vars):
                return {**result, "failed": True, "msg": reason}
            template = f"{self._task.args.get('source', '.')}/{item.get('template', item['name'])}.j2"
            try:
                [content] = lookup.run([template], variables, **options)
            except AnsibleError as error:
                return {**result, "failed": True, "msg": f"{template}: {error}"}
            files.append({**item, "content": content})
        given = self._by_path(files)
        if self._look(given, self._by_path(self._task.args.get("directories", []))):
            return {**result, "changed": False, "files": [], "directories": [], "paths": list(given), "diff": []}
        # Keeps the contents, which include secrets, out of the host's journal, where modules log their parameters.
        return {
            **result,
            **self._execute_module(
                module_name="labredes.pbx.templates",
                task_vars={**task_vars, "ansible_no_target_syslog": True},
                module_args={**self._task.args, "files": files},
            ),
        }

    def _by_path(self, items):
        """Entries of files or directories by their paths, each with the owner, group and mode that it is to have."""
        given = self._task.args
        common = {name: given[name] for name in ATTRIBUTES if name in given}
        return {os.path.normpath(os.path.join(given["directory"], item["name"])): {**common, **item} for item in items}

    def _look(self, files, directories):
        """Whether the host has all of it, asked by the shell: a module takes four times as long to start."""
        purge = self._task.args.get("purge", [])
        absent = [os.path.join(self._task.args["directory"], name) for name in self._task.args.get("absent", [])]
        paths = shlex.join([*files, *directories, *absent])
        script = f"export LC_ALL=C; sha256sum -- {shlex.join(files)}; {SHOW} -- {paths}"
        for directory in purge:
            script += f"; find {shlex.quote(directory)} -mindepth 1 -exec {SHOW} -- {{}} +"
        lines = answer_of(self, script)["stdout"].splitlines()
        return is_as_wanted(files, directories, absent, purge, lines)
