#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A handler forgets its notification when the run is killed; this module looks at what the service has read.

It also enables and starts the service: by one call, with one look at the unit.
"""

DOCUMENTATION = r"""
module: service_reload
short_description: Reload or restart a service that has not read its files as they are now
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Compares each file with what the running service has read, so that a change is also applied if the run that wrote it
    was killed, or if somebody else made it. What was read is noted in C(/run/labredes).
  - A service that is not active is left alone without O(start), since it reads its files when it starts.
  - First the action compares by the shell of the host, and starts the module only where there is something to do.
  - With O(enabled) or O(start), systemd first reads its own files again if one of a unit has changed since it did.
options:
  unit: {description: The systemd unit., type: str, required: true}
  files:
    description: Files that the service reads, whether they exist or not.
    type: list
    elements: path
    default: []
  reloaded:
    description: Further files, for which it is enough to reload the service.
    type: list
    elements: path
    default: []
  action:
    description: Command of systemctl that has the service read them.
    type: str
    choices: [reload, restart]
    default: reload
  enabled: {description: Enable the unit if it is not., type: bool, default: false}
  start: {description: Start the unit if it is not active., type: bool, default: false}
  units:
    description: Further units whose changed files systemd is to read, such as what a timer starts.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full, description: Only reports whether the service would be reloaded.}
"""

EXAMPLES = r"""
- name: Apply the settings of the journal
  labredes.pbx.service_reload:
    unit: systemd-journald.service
    files: [/etc/systemd/journald.conf.d/50-labredes.conf]
    action: restart

- name: Start the timer
  labredes.pbx.service_reload:
    unit: labredes-certificate.timer
    units: [labredes-certificate.service]
    enabled: true
    start: true
"""

RETURN = r"""
files: {description: The files that the service had not read., returned: success, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.labredes.pbx.plugins.module_utils.read_files import ReadFiles, unit_state

ENABLED = {"enabled", "static", "alias", "indirect", "generated"}  # as systemctl is-enabled counts


def systemctl(module, word, *units):
    """Run systemctl; fails in a sentence."""
    code, out, complaint = module.run_command(["systemctl", word, *units])
    if code:
        reason = " ".join((complaint or out).split()).rstrip(".")
        what, log = units[0] if units else "systemd", f"--unit={units[0]}" if units else "--identifier=systemd"
        with_files = " with its new files" if word in ("reload", "restart") else ""
        module.fail_json(msg=f"{what} does not {word}{with_files} ({reason}); see journalctl {log}.")


def prepare(module, unit):
    """Have systemd read changed units, enable and start this one; returns its state, and what was done."""
    state = unit_state(unit)
    done: list = []
    if not (module.params["enabled"] or module.params["start"]):
        return state, done
    states = [state, *map(unit_state, module.params["units"])]
    # A unit that was masked, or not there, may be there by now.
    if not module.check_mode and any(
        one["NeedDaemonReload"] == "yes" or one["LoadState"] != "loaded" for one in states
    ):
        systemctl(module, "daemon-reload")
        state = unit_state(unit)
    if module.params["enabled"] and state["UnitFileState"] not in ENABLED:
        done.append("enable")
    if module.params["start"] and state["ActiveState"] not in ("active", "activating", "reloading"):
        done.append("start")
    if done and not module.check_mode:
        for word in done:
            systemctl(module, word, unit)
        state = unit_state(unit)
    return state, done


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "reloaded": {"type": "list", "elements": "path", "default": []},
            "action": {"choices": ["reload", "restart"], "default": "reload"},
            "enabled": {"type": "bool", "default": False},
            "start": {"type": "bool", "default": False},
            "units": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    unit, action = module.params["unit"], module.params["action"]
    files = module.params["files"] + module.params["reloaded"]
    service = ReadFiles(unit, files)
    state, done = prepare(module, unit)
    # A timer or a mount has no process that reads files.
    if state["ActiveState"] != "active" or not files:
        module.exit_json(changed=bool(done), files=[])
    unread = service.unread(state)
    if module.check_mode:
        module.exit_json(changed=bool(done or unread), files=unread)
    if not set(unread).intersection(module.params["files"]):
        action = "reload"
    if unread:
        systemctl(module, action, unit)
        state = unit_state(unit)
    service.save(state, files)
    module.exit_json(changed=bool(done or unread), files=unread)


if __name__ == "__main__":
    main()
