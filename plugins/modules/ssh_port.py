#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documentation of the action labredes.pbx.ssh_port, which runs on the controller alone."""

DOCUMENTATION = r"""
module: ssh_port
short_description: Find the port at which a host answers SSH
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Tries the ports in their order, from the controller and without logging in, until one greets with
    an SSH banner. All are tried again until O(timeout) is over, so a host that is still starting is met.
  - Runs in check mode as well and never changes anything.
options:
  ports:
    description: TCP ports, the most wanted first.
    type: list
    elements: int
    required: true
  timeout:
    description: Seconds after which a host that answers on none of them is given up.
    type: float
    default: 10
"""

EXAMPLES = r"""
- name: Find the SSH port
  labredes.pbx.ssh_port:
    ports: [3524, 22]
  register: found
"""

RETURN = r"""
port:
  description: The first port that answered.
  type: int
  returned: success
"""
