#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A handler forgets its notification when the run is killed; this module looks at what the service has read."""

DOCUMENTATION = r"""
module: service_reload
short_description: Reload or restart a service that has not read its files as they are now
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Compares each file with what the running service has read, so that a change is also applied if the run that wrote it
    was killed, or if somebody else made it. What was read is noted in C(/run/labredes).
  - A service that is not active is left alone, since it reads its files when it starts.
options:
  unit: {description: The systemd unit., type: str, required: true}
  files:
    description: Files that the service reads, whether they exist or not.
    type: list
    elements: path
    required: true
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
attributes:
  check_mode: {support: full, description: Only reports whether the service would be reloaded.}
"""

EXAMPLES = r"""
- name: Apply the settings of the journal
  labredes.pbx.service_reload:
    unit: systemd-journald.service
    files: [/etc/systemd/journald.conf.d/50-labredes.conf]
    action: restart
"""

RETURN = r"""
files: {description: The files that the service had not read., returned: success, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.labredes.pbx.plugins.module_utils.read_files import ReadFiles, unit_state


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"required": True},
            "files": {"type": "list", "elements": "path", "required": True},
            "reloaded": {"type": "list", "elements": "path", "default": []},
            "action": {"choices": ["reload", "restart"], "default": "reload"},
        },
        supports_check_mode=True,
    )
    unit, action = module.params["unit"], module.params["action"]
    files = module.params["files"] + module.params["reloaded"]
    service, state = ReadFiles(unit, files), unit_state(unit)
    if state["ActiveState"] != "active":
        module.exit_json(changed=False, files=[])
    unread = service.unread(state)
    if module.check_mode:
        module.exit_json(changed=bool(unread), files=unread)
    if not set(unread).intersection(module.params["files"]):
        action = "reload"
    if unread:
        code, out, complaint = module.run_command(["systemctl", action, unit])
        if code:
            reason = " ".join((complaint or out).split()).rstrip(".")
            module.fail_json(
                msg=f"{unit} does not {action} with its new files ({reason}); see journalctl --unit={unit}."
            )
    service.save(unit_state(unit), files)
    module.exit_json(changed=bool(unread), files=unread)


if __name__ == "__main__":
    main()
