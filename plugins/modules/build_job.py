#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Start a long build as a transient systemd unit, or look at one."""

DOCUMENTATION = r"""
module: build_job
short_description: Run a long build on the host, cut off from the network, and say how far it is
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - The build runs as a transient systemd unit without a network, so it outlives a lost connection,
    and other steps may run meanwhile. When its result exists it is not run at all.
  - The build keeps C(progress.json) in its directory; the controller shows it while it waits.
options:
  unit:
    description: Name of the transient unit, without its suffix.
    type: str
    required: true
  work:
    description: Directory of the build.
    type: path
    required: true
  argv:
    description: The command with its arguments, for O(state=started).
    type: list
    elements: str
  creates:
    description: The file that exists when the build is whole.
    type: path
    required: true
  timeout:
    description: Seconds after which the wait is given up; the build itself goes on.
    type: int
    default: 3600
  patience:
    description:
      - Seconds that one call on the host waits for the end of the step under way, for O(state=finished).
      - The controller calls until the build has ended; a call costs as much as compiling a file does.
    type: int
    default: 15
  state:
    description:
      - V(started) sees to it that the build runs, unless its result exists, and does not wait.
      - V(finished) waits for the build that was started, showing its progress.
    type: str
    choices: [started, finished]
    required: true
attributes:
  check_mode:
    support: none
"""

EXAMPLES = r"""
- name: Start the build
  labredes.pbx.build_job:
    unit: labredes-asterisk-0123456789ab
    work: /var/cache/labredes-pbx/0123456789ab
    argv: [/usr/bin/python3, build_package.py, spec.json]
    creates: /var/cache/labredes-pbx/0123456789ab/asterisk.deb
    state: started

- name: Wait for it
  labredes.pbx.build_job:
    unit: labredes-asterisk-0123456789ab
    work: /var/cache/labredes-pbx/0123456789ab
    creates: /var/cache/labredes-pbx/0123456789ab/asterisk.deb
    state: finished
"""

RETURN = r"""
done:
  description: Whether the result exists.
  returned: always
  type: bool
active:
  description: Whether the build is running.
  returned: always
  type: bool
progress:
  description: What the build last wrote to progress.json.
  returned: always
  type: dict
"""

import json
import os
import time

from ansible.module_utils.basic import AnsibleModule


def progress(work):
    """The build's own account of how far it is; empty before it has written one."""
    try:
        with open(os.path.join(work, "progress.json")) as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}


def wait(look, seconds, nap=1):
    """Look every `nap` seconds until the build has ended, is in another step or `seconds` are over.

    ``look`` gives (done, active, progress), as does this.
    """
    end = time.time() + seconds
    first = seen = look()
    while seen[1] and not seen[0] and seen[2].get("step") == first[2].get("step") and time.time() < end:
        time.sleep(nap)
        seen = look()
    return seen


def main():
    """Look, start if wanted and needed, and report."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "work": {"type": "path", "required": True},
            "argv": {"type": "list", "elements": "str"},
            "creates": {"type": "path", "required": True},
            "timeout": {"type": "int", "default": 3600},
            "patience": {"type": "int", "default": 15},
            "state": {"type": "str", "choices": ["started", "finished"], "required": True},
        },
        required_if=[("state", "started", ["argv"])],
    )
    unit = module.params["unit"] + ".service"

    def look():
        # In this order: a unit that ends in between has left its result.
        active = module.run_command(["systemctl", "is-active", "--quiet", unit])[0] == 0
        return os.path.exists(module.params["creates"]), active, progress(module.params["work"])

    done, active, step = look() if module.params["state"] == "started" else wait(look, module.params["patience"])
    changed = False
    if module.params["state"] == "started" and not done and not active:
        module.run_command(["systemctl", "reset-failed", unit])
        code, _, complaint = module.run_command(
            [
                "systemd-run",
                "--unit",
                unit,
                "--quiet",
                "--property=PrivateNetwork=yes",
                "--property=PrivateTmp=yes",
                "--property=ProtectHome=yes",
                "--property=ProtectSystem=full",
            ]
            + module.params["argv"]
        )
        if code:
            module.fail_json(msg="The build could not be started: %s" % complaint.strip())
        changed = active = True
    module.exit_json(changed=changed, done=done, active=active, progress=step)


if __name__ == "__main__":
    main()
