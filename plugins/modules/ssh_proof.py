#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documentation of the action labredes.pbx.ssh_proof, which runs on the controller alone."""

DOCUMENTATION = r"""
module: ssh_proof
short_description: Prove that the connecting user can log in by key, over a new connection
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Logs in from the controller with the host's own connection variables, at O(port), by public key
    alone and without sharing a connection that is already open.
  - A login that fails fails the task, so that a C(rescue) can put things back; the host does not
    become unreachable for the run.
  - In check mode nothing is tried.
options:
  port:
    description: The TCP port to log in at.
    type: int
    required: true
  timeout:
    description: Seconds that the login may take.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: Prove the new port
  labredes.pbx.ssh_proof:
    port: 3524
"""

RETURN = r"""
reason:
  description: Why the login failed, in one sentence.
  type: str
  returned: failure
"""
