# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action labredes.pbx.run_lock: see plugins/modules/run_lock.py."""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.action import ActionBase
from ansible_collections.labredes.pbx.plugins.plugin_utils import run_lock


class ActionModule(ActionBase):
    """The action plugin; it opens no connection."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Take the host's lock; fails with one sentence that names the run that has it."""
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        _checked, args = self.validate_argument_spec(
            {"directory": {"type": "path", "default": "~/.local/state/labredes.pbx/locks"}}
        )
        if self._task.check_mode:
            return dict(result, changed=False)
        name = task_vars["inventory_hostname"]
        address = self._play_context.remote_addr or name
        pid = run_lock.main_process()
        try:
            run_lock.take(Path(args["directory"]).expanduser(), name, address, pid)
        except run_lock.Busy as busy:
            holder = busy.holder
            cure = "wait for it or stop it"
            if not holder["here"]:
                cure += f", or remove {holder['file']} if it is gone"
            return dict(
                result,
                failed=True,
                msg=f"{name}: another run (pid {holder['pid']} on {holder['controller']}) "
                f"is at work on {name}; {cure}.",
            )
        except OSError as error:
            return dict(
                result,
                failed=True,
                msg=f"{name}: the run lock cannot be written ({error}); make the directory "
                "writable or set preflight_lock_directory.",
            )
        return dict(result, changed=False, pid=pid)
