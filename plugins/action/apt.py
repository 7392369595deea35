# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Own code, since lock_timeout of ansible.builtin.apt does not wait for the lock of dpkg's front ends."""

from __future__ import annotations

import re
import shlex
import time

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.labredes.pbx.plugins.plugin_utils.facts import missing_facts
from ansible_collections.labredes.pbx.plugins.plugin_utils.shell import answer_of

# In any language the file's name is part of apt's message; python3-apt's own begins with the words before the last,
# and dpkg's, of a package in a file, ends with the last.
LOCKED = re.compile(r"/lock\b|database area is locked|Failed to lock|locked by another process")
FULL = re.compile(r"[^\n]*No space left on device[^\n]*")
# Part of the message in any language.
INTERRUPTED = "dpkg --configure -a"
COMPLETE = ["env", "DEBIAN_FRONTEND=noninteractive", *INTERRUPTED.split(), "--force-confdef", "--force-confold"]
HOLDER = re.compile(r"process \d+ \([^)]*\)")
# Waits up to 30 s until all packages in $@ are installed, or until the unit of playbooks/packages.yml has ended.
AWAIT = """
for attempt in $(seq 60); do
  [ $# = 0 ] || printf '%s\\n' "$@" | grep -qvxF "$(dpkg-query --show --showformat='${db:Status-Status} ${Package}\\n' |
    sed -n 's/^installed //p')" || exit 0
  [ "$(systemctl is-active labredes-packages 2> /dev/null)" = activating ] || exit 1
  sleep 0.5
done
exit 2
"""
INSTALLED, AT_WORK = 0, 2
LOCK_SECONDS = 300
TRIES = 4
PAUSE = 10
display = Display()


class ActionModule(ActionBase):
    """Run ansible.builtin.apt until it has the lock; documented in plugins/modules/apt.py."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = dict(super().run(tmp, task_vars), changed=False)
        if reason := missing_facts(task_vars):
            return {**result, "failed": True, "msg": reason}
        arguments = {"update_cache": True, "cache_valid_time": 3600, **self._task.args}
        names = arguments.get("name") or []
        names = {one.strip() for one in names.split(",")} if isinstance(names, str) else set(names)
        if names and names <= set(task_vars.get("preflight_packages", [])):
            return result
        host = task_vars["inventory_hostname"]
        while (code := self._in_background(names)) == AT_WORK:
            display.display(f"    {host}: waiting for the packages that are being installed")
        if code == INSTALLED:
            return result
        began, failures, lines = time.monotonic(), 0, 0
        completed = False
        while True:
            answer = self._execute_module("ansible.builtin.apt", module_args=arguments, task_vars=task_vars)
            if not answer.get("failed"):
                return {**result, **answer}
            # Of a package in a file the reason is in dpkg's own output alone.
            reason = "\n".join(str(answer.get(key) or "") for key in ("msg", "stderr"))
            waited = round(time.monotonic() - began)
            if LOCKED.search(reason):
                holder = (HOLDER.search(reason) or ["another program"])[0]
                if waited >= LOCK_SECONDS:
                    answer["msg"] = (
                        f"{host}: {holder} has held apt's lock for {waited} s; "
                        "wait until it has ended, or stop it, then run again."
                    )
                    return {**result, **answer}
                if waited >= 30 * lines:
                    display.display(f"    {host}: waiting for {holder}, which holds apt's lock ({waited} s)")
                    lines += 1
            elif INTERRUPTED in reason:
                if completed or self._task.check_mode:
                    answer["msg"] = (
                        f"{host}: an installation of packages was interrupted; complete it on the host with "
                        f"`{INTERRUPTED}`, then run again."
                    )
                    return {**result, **answer}
                display.display(f"    {host}: completing an installation that was interrupted ({INTERRUPTED})")
                self._execute_module("ansible.builtin.command", module_args={"argv": COMPLETE}, task_vars=task_vars)
                completed = True
                continue
            elif "must be installed to use check mode" in reason:
                answer["msg"] = (
                    f"{host}: check mode needs the package python3-apt on the host; run without --check, which "
                    "installs it, or install it with `apt-get install python3-apt`."
                )
                return {**result, **answer}
            elif full := FULL.search(reason):
                answer["msg"] = (
                    f"{host}: apt failed ({full[0].strip()}); "
                    "free some disk space on the host or enlarge its file system, then run again."
                )
                return {**result, **answer}
            elif (failures := failures + 1) == TRIES:
                error = re.search(r"E: ?([^\n]+)", reason)
                answer["msg"] = (
                    f"{host}: apt failed ({error[1] if error else reason.strip() or 'without a reason'}); "
                    "check the host's package sources and its network, then run again."
                )
                return {**result, **answer}
            else:
                # A mirror that is being updated lists packages that it does not serve yet.
                arguments["cache_valid_time"] = 0
            time.sleep(PAUSE)

    def _in_background(self, names):
        """INSTALLED when the host has all NAMES, AT_WORK while it is still installing packages in the background."""
        script = ["sh", "-c", AWAIT, "sh", *sorted(names)]
        return answer_of(self, shlex.join(script))["rc"]
