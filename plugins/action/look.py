# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Looks at a host by its shell; own code, since raw mixes output with errors; documented in plugins/modules/look.py."""

from __future__ import annotations

import shlex

from ansible.plugins.action import ActionBase
from ansible_collections.labredes.pbx.plugins.plugin_utils.shell import answer_of


class ActionModule(ActionBase):
    """Runs a script on the host, also in check mode."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """Output and return code of the script."""
        result = super().run(tmp, task_vars)
        self.validate_argument_spec({"script": {"type": "str", "required": True}})
        script = f"{self._compute_environment_string()} sh -c {shlex.quote(self._task.args['script'])}"
        answer = answer_of(self, script.strip())
        stdout, stderr = (answer[name].rstrip("\n") for name in ("stdout", "stderr"))
        result |= {"changed": False, "rc": answer["rc"], "stdout": stdout, "stdout_lines": stdout.splitlines()}
        if answer["rc"]:
            result |= {"failed": True, "msg": stderr or f"return code {answer['rc']}"}
        return {**result, "stderr": stderr}
