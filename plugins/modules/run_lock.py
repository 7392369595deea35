#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documentation of the action labredes.pbx.run_lock, which runs on the controller."""

DOCUMENTATION = r"""
module: run_lock
short_description: Log in to a host and lock it for the run
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Logs in over a connection of its own and holds a C(flock) on C(/etc/ssh) of the host, so that a run from another
    terminal or another controller fails. Root is not needed.
  - The lock ends about a second after the run's main process ends, however it ends, and 30 seconds after the
    controller is lost. Nothing is written on the host.
  - The run that holds the lock may take it again. In check mode it only logs in. Over other connections than SSH
    nothing is done.
"""

EXAMPLES = r"""
- name: Lock the host for this run
  labredes.pbx.run_lock:
  register: lock
"""

RETURN = r"""
output:
  description: Output of ssh when the login failed, which is no failure of the task.
  type: str
  returned: when the login failed
"""
