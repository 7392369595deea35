# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of labredes.pbx.build_job: while it waits, it shows the progress."""

from __future__ import annotations

import time

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()


class ActionModule(ActionBase):
    """Wait for a build on the host, saying how far it is."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        host = task_vars["inventory_hostname"]
        timeout, patience = int(arguments.get("timeout", 3600)), int(arguments.get("patience", 15))
        began = time.monotonic()
        # The first look does not wait: what is under way is shown at once.
        state = self._look({**arguments, "patience": 0}, task_vars)
        if state.get("failed") or arguments.get("state") == "started":
            return {**result, **state}
        while not state.get("failed") and not state["done"] and state["active"]:
            if step := state["progress"]:
                display.display(
                    f"    {host}: step {step['number']} of {step['of']}, {step['step']}"
                    f"{': ' + step['detail'] if step['detail'] else ''}"
                    f" ({time.monotonic() - began:.0f} s)"
                )
            left = timeout - int(time.monotonic() - began)
            if left <= 0:
                return {
                    **result,
                    "failed": True,
                    "msg": f"{host}: the build is still running after {timeout} s; "
                    f"it goes on as unit {arguments['unit']}, and the next run joins it.",
                }
            state = self._look({**arguments, "patience": min(patience, left)}, task_vars)
        if state.get("failed"):
            return {**result, **state}
        if not state["done"]:
            reason = state["progress"].get("error") or "the build was ended from outside; run again, it is taken up."
            return {**result, "failed": True, "msg": f"{host}: {reason}"}
        return {**result, "changed": False, "seconds": round(time.monotonic() - began)}

    def _look(self, arguments, task_vars):
        """One call of the module on the host."""
        return self._execute_module(module_name="labredes.pbx.build_job", task_vars=task_vars, module_args=arguments)
