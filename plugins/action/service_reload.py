# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action of labredes.pbx.service_reload, which starts the module where there is something to do; see the module."""

from __future__ import annotations

import json
import shlex

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.labredes.pbx.plugins.module_utils.read_files import DIRECTORY, PROPERTIES
from ansible_collections.labredes.pbx.plugins.modules.service_reload import ENABLED
from ansible_collections.labredes.pbx.plugins.plugin_utils.shell import answer_of

# Systemd's answer, what the service has read, and its files as they are, which may be none.
LOOK = """systemctl show --property={properties} -- {units}; echo =; cat {note}; echo; echo =
stat -L -c '%i %.9Z %n' -- {files}"""


def nothing_to_do(arguments, units, note, files):
    """Whether the service is as it is to be and has read its files; in doubt no.

    units: the properties of each unit; note: what it has read; files: inode, time of change and path, as text.
    """
    state, enabled, start = units[0], boolean(arguments.get("enabled", False)), boolean(arguments.get("start", False))
    if enabled or start:
        stale = [one for one in units if (one["NeedDaemonReload"], one["LoadState"]) != ("no", "loaded")]
        if stale or (enabled and state["UnitFileState"] not in ENABLED):
            return False
    paths = [*arguments.get("files", []), *arguments.get("reloaded", [])]
    known = note["files"] if paths and note["invocation"] == state["InvocationID"] else {}
    parts = [one.split(" ", 2) for one in files]
    found = {path: [int(inode), int(time.replace(".", ""))] for inode, time, path in parts}
    read = all(path in known and known[path] == found.get(path) for path in paths)
    return state["ActiveState"] == "active" and read


class ActionModule(ActionBase):
    """Looks at the unit and its files by the shell: a module takes four times as long to start."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """The module's result."""
        result = super().run(tmp, task_vars)
        if self._look(self._task.args):
            return {**result, "changed": False, "files": []}
        return {**result, **self._execute_module(task_vars=task_vars)}

    def _look(self, arguments):
        paths = [*arguments.get("files", []), *arguments.get("reloaded", [])]
        script = LOOK.format(
            properties=",".join(PROPERTIES),
            units=shlex.join([arguments["unit"], *arguments.get("units", [])]),
            note=shlex.quote(f"{DIRECTORY}/{arguments['unit']}.json"),
            files=shlex.join(paths),
        )
        lines = answer_of(self, script)["stdout"].splitlines()
        try:
            shown, note, files = "\n".join([*lines, ""]).split("\n=\n")
            units = [dict(line.split("=", 1) for line in one.splitlines()) for one in shown.split("\n\n")]
            return nothing_to_do(arguments, units, json.loads(note.strip() or "{}"), files.splitlines())
        except (ValueError, KeyError):
            return False
