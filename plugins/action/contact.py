# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action labredes.pbx.contact: see plugins/modules/contact.py."""

from __future__ import annotations

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.labredes.pbx.plugins.plugin_utils.ssh_failure import sentence


class ActionModule(ActionBase):
    """Runs the setup module over the task's own connection and translates its failures."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """Return the facts; a host that cannot be worked on fails with one sentence."""
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        _checked, args = self.validate_argument_spec(
            {"gather_subset": {"type": "list", "elements": "str", "default": ["all"]}}
        )
        try:
            answer = self._execute_module("ansible.legacy.setup", args, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            return dict(result, failed=True, msg=self._sentence(error.message, task_vars))
        except AnsibleError as error:
            return dict(result, failed=True, msg=self._sentence(str(error), task_vars))
        if answer.get("failed"):
            said = "\n".join(str(answer.get(key, "")) for key in ("msg", "module_stdout", "module_stderr"))
            return dict(result, failed=True, msg=self._sentence(said, task_vars))
        return dict(result, changed=False, ansible_facts=answer["ansible_facts"])

    def _sentence(self, said: str, task_vars: dict) -> str:
        context = self._play_context
        return sentence(
            said,
            task_vars["inventory_hostname"],
            context.remote_addr,
            context.port,
            context.remote_user,
            task_vars.get("ansible_python_interpreter"),
        )
