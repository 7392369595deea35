# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Own code, since `until` shows no progress and an include that repeats itself nests too deeply; a step at a time."""

from __future__ import annotations

import os
import shlex
import time

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

RUNNING = 3
display = Display()


class ActionModule(ActionBase):
    """Wait for a build on the host and display its progress; documented in plugins/modules/build_wait.py."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        unit, package, timeout = (self._task.args[name] for name in ("unit", "package", "timeout"))
        host, work = task_vars["inventory_hostname"], os.path.dirname(package)
        began, seconds = time.monotonic(), 0
        while True:
            # The host waits, not the controller: each call costs as much as compiling a file does.
            command = shlex.join(["sh", f"{work}/progress.sh", unit, package, str(seconds)])
            answer = self._low_level_execute_command(command)
            progress, passed = answer["stdout"].strip(), round(time.monotonic() - began)
            if answer["rc"] == 0:
                return {**result, "changed": False, "seconds": passed}
            if answer["rc"] != RUNNING:
                reason = progress or answer["stderr"].strip()
                message = (
                    f"{host}: the build failed: {reason} (the output is in {work}/build.log; run again to repeat it)"
                )
                return {**result, "failed": True, "msg": message}
            display.display(f"    {host}: {progress} ({passed} s)")
            seconds = min(15, int(timeout) - passed)
            if seconds <= 0:
                message = f"{host}: the build is still running after {passed} s; the next run waits for it again"
                return {**result, "failed": True, "msg": message}
