#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module labredes.pbx.asterisk_service: see DOCUMENTATION."""

DOCUMENTATION = r"""
module: asterisk_service
short_description: Have the running Asterisk read its configuration files as they are now
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Compares each file with what the running Asterisk has read, then reloads the modules whose files differ, or restarts
    Asterisk if a file is only read when it starts. A change is also applied if the run that wrote it was killed, or if
    somebody else made it. What was read is noted in C(/run/labredes).
  - Reads the answer to each reload, which C(asterisk -rx) reports with exit code 0 also when it failed, and the errors
    that Asterisk logs about its configuration at that moment.
  - Succeeds only if Asterisk answers on its control socket with all modules loaded.
options:
  files:
    description:
      - The files. Each has C(name), its path, relative to O(directory). It may have C(reload), the module that reads
        the file again, without which it is only read when Asterisk starts, and C(also), a list of other paths that
        the module reads then, such as a certificate. With C(restart) the module reads it when it is loaded, and
        a change needs a restart. A file with C(loads) is a part of modules.conf, which names the modules of that
        dictionary where their value is true; they are loaded and unloaded without a restart. Other keys are ignored.
    type: list
    elements: dict
    required: true
  directory: {description: Directory of Asterisk's configuration., type: path, default: /etc/asterisk}
  start: {description: Start Asterisk if it does not run., type: bool, default: true}
  end_calls:
    description: >-
      Whether Asterisk is restarted while there are calls, which ends them. Without it the module fails then, and names
      who talks.
    type: bool
    default: false
  timeout: {description: "Longest wait for an answer of Asterisk, in seconds.", type: int, default: 30}
  directories:
    description: Directories that Asterisk writes. Asterisk is restarted where one is missing; its unit creates them.
    type: list
    elements: path
    default: [/var/lib/asterisk, /var/log/asterisk, /var/spool/asterisk]
  log:
    description: Asterisk's log of errors, which is opened again if it is missing.
    type: path
    default: /var/log/asterisk/messages
attributes:
  check_mode: {support: full, description: Only reports what would be reloaded or restarted.}
"""

EXAMPLES = r"""
- name: Have Asterisk read its files
  labredes.pbx.asterisk_service:
    files:
      - {name: modules.conf}
      - {name: queues.conf, reload: app_queue}
      - {name: http.conf, reload: http, also: [/etc/ssl/pbx/certificate.pem]}
      - {name: modules_cel.conf, loads: {cel_sqlite3_custom: true}}
"""

RETURN = r"""
action: {description: "C(started), C(restarted), C(reloaded) or empty.", returned: success, type: str}
files: {description: The files that Asterisk had not read., returned: success, type: list, elements: str}
modules:
  description: The modules that were loaded, reloaded or unloaded.
  returned: success
  type: list
  elements: str
"""

import os
import re
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.labredes.pbx.plugins.module_utils.asterisk_cli import AsteriskError, calls, cli, in_progress
from ansible_collections.labredes.pbx.plugins.module_utils.read_files import ReadFiles, socket_state, unit_state

UNIT = "asterisk.service"
BOOTED = "/run/systemd/system"  # as sd_booted(3) looks for systemd
SOCKET = "/run/asterisk/asterisk.ctl"
LOGGED = 0.2  # seconds after which Asterisk's logger has written what happened before
BUSY = re.compile("request queued|already in progress")
# Errors of the parts of Asterisk that read configuration; those of calls and connections are not about a reload.
CONFIGURATION_ERROR = re.compile(
    r"(ERROR|WARNING)\[\d+\]\S* (config|config_options|res_sorcery_config|sorcery|pbx_config|pbx_lua|extconfig)\.c"
    r"|ERROR\[.* \S+\.(conf|lua)\b"
)


def service_state():
    """The state of Asterisk: of its unit, or in a container of the socket that it shares with this one."""
    return unit_state(UNIT) if os.path.isdir(BOOTED) else socket_state(SOCKET)


class Service:
    """The unit, and the log from now on."""

    def __init__(self, seconds, log):
        self.seconds, self.log = seconds, log
        self.logged = os.path.getsize(log) if os.path.exists(log) else 0

    def restart(self):
        """Start the unit anew and wait until Asterisk has loaded its modules.

        Not by `systemctl start`, which would wait for a unit that fails to start again and again.
        """
        if not os.path.isdir(BOOTED):
            self.restart_in_place()
            return
        command = ["systemctl", "restart", UNIT]
        try:
            subprocess.check_output(command, stderr=subprocess.STDOUT, timeout=self.seconds)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            problem = f"Asterisk does not restart within {self.seconds} s; see journalctl --unit=asterisk"
            raise AsteriskError(problem + self.errors(every=True)) from None
        self.started()

    def started(self):
        """Wait until Asterisk has loaded its modules, and read what it says of its files."""
        cli("core waitfullybooted", self.seconds)
        time.sleep(LOGGED)
        errors = self.errors()
        if errors:
            raise AsteriskError(f"Asterisk started with errors in its files:{errors}")

    def restart_in_place(self):
        """Have Asterisk start anew in its own container, which goes on."""
        before, deadline = service_state()["InvocationID"], time.monotonic() + self.seconds
        cli("core restart now", self.seconds)
        while True:
            now = service_state()
            if now["InvocationID"] != before and now["ActiveState"] == "active":
                break
            if time.monotonic() > deadline:
                problem = f"Asterisk does not restart within {self.seconds} s; see the log of its container"
                raise AsteriskError(problem + self.errors(every=True))
            time.sleep(0.2)
        self.started()

    def reload(self, name):
        """Reload a module and read the answer."""
        deadline = time.monotonic() + self.seconds
        answer = cli(f"module reload {name}", self.seconds)
        while BUSY.search(answer) and time.monotonic() < deadline:
            time.sleep(0.2)
            answer = cli(f"module reload {name}", self.seconds)
        time.sleep(LOGGED)
        errors = self.errors()
        if "reloaded successfully" not in answer or errors:
            raise AsteriskError(f"Asterisk did not take its new files: {' '.join(answer.split())}{errors}")

    def has(self, name):
        """Whether a module runs."""
        shown = cli(f"module show like {name}", self.seconds)
        return re.search(rf"(?m)^{name}\.so .*(?<!Not )Running", shown) is not None

    def switch(self, name, wanted):
        """Load or unload a module."""
        answer = cli(f"module {'load' if wanted else 'unload'} {name}", self.seconds)
        time.sleep(LOGGED)
        errors = self.errors()
        if self.has(name) != wanted or errors:
            raise AsteriskError(f"Asterisk did not take its new files: {' '.join(answer.split())}{errors}")

    def errors(self, every=False):
        """What Asterisk has logged since the beginning: errors of its configuration, or every error."""
        try:
            with open(self.log, encoding="utf-8", errors="replace") as stream:
                stream.seek(self.logged)
                lines = stream.read().splitlines()
        except OSError:
            return ""
        found = [line for line in lines if (" ERROR[" in line if every else CONFIGURATION_ERROR.search(line))]
        return "".join("\n" + line for line in found[:10])


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True},
            "directory": {"type": "path", "default": "/etc/asterisk"},
            "start": {"type": "bool", "default": True},
            "end_calls": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 30},
            "directories": {
                "type": "list",
                "elements": "path",
                "default": ["/var/lib/asterisk", "/var/log/asterisk", "/var/spool/asterisk"],
            },
            "log": {"type": "path", "default": "/var/log/asterisk/messages"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**apply(module))
    except AsteriskError as problem:
        module.fail_json(msg=f"{problem}.")


def apply(module):
    """Start, restart or reload; returns the module's result."""
    service = Service(module.params["timeout"], module.params["log"])
    configuration = {os.path.join(module.params["directory"], item["name"]): item for item in module.params["files"]}
    paths, readers = {path: path for path in configuration}, {}
    for path, item in configuration.items():
        readers[path] = item.get("reload")
        for also in item.get("also", []):  # several modules may read the same certificate, each when it is reloaded
            paths[f"{also} ({readers[path]})"], readers[f"{also} ({readers[path]})"] = also, readers[path]
    files, state = ReadFiles(UNIT, paths), service_state()
    active, new_unit = state["ActiveState"] == "active", state["NeedDaemonReload"] == "yes"
    # A container that is not running yet is started from outside.
    if not active and not (module.params["start"] and os.path.isdir(BOOTED)):
        return {"changed": False, "action": "", "files": [], "modules": []}
    if active and not module.check_mode:
        cli("core waitfullybooted", service.seconds)
    unread = files.unread(state) if active else []
    loads = {name: boolean(on) for item in configuration.values() for name, on in item.get("loads", {}).items()}
    loads = {name: wanted for name, wanted in loads.items() if active and service.has(name) != wanted}
    # A module that is loaded reads its files then, and what names it has been followed.
    unread = [
        path
        for path in unread
        if readers[path] not in loads and not (path in configuration and "loads" in configuration[path])
    ]
    # In the order of the files: a mailbox is not reported to a phone that is not there yet.
    order = [*readers.values(), "logger"]
    restart = [path for path, item in configuration.items() if boolean(item.get("restart", False))]
    modules = {None if path in restart else readers[path] for path in unread}
    if not os.path.exists(service.log):
        modules.add("logger")
    missing = [path for path in module.params["directories"] if not os.path.isdir(path)]
    if not active or new_unit or missing or None in modules:
        action, reloads = "restarted" if active else "started", []
    else:
        action, reloads = "reloaded" if modules or loads else "", sorted(modules, key=order.index)
    if action != "reloaded":
        loads = {}
    if not module.check_mode:
        talking = calls(service.seconds) if action == "restarted" and not module.params["end_calls"] else []
        if talking:
            why = (
                ", ".join(path for path in unread if readers[path] is None)
                or "the directories or the unit that are new"
            )
            raise AsteriskError(
                f"Asterisk has to be restarted for {why}, and {in_progress(talking)}; run again when the calls have "
                "ended, or with -e labredes_end_calls=true, which ends them"
            )
        if action in ("started", "restarted"):
            if new_unit:
                module.run_command(["systemctl", "daemon-reload"], check_rc=True)
            service.restart()
            state = service_state()
        for name in filter(loads.get, loads):
            service.switch(name, True)
        for name in reloads:
            read = [path for path in readers if readers[path] == name]
            for path in set(read).intersection(configuration):
                files.touch(path)
            service.reload(name)
            files.save(state, read)
        # After the reload of what gives it work: cel.conf, which ends the events.
        for name in [name for name, wanted in loads.items() if not wanted]:
            service.switch(name, False)
        files.save(state, readers)
    names = list(map(str, [*loads, *reloads]))
    diff = {"prepared": f"asterisk.service: {' '.join([action, *names])}\n"} if action else {}
    return {"changed": bool(action), "action": action, "files": unread, "modules": names, "diff": diff}


if __name__ == "__main__":
    main()
