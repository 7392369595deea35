# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A test for the names of connection plugins."""

from __future__ import annotations

DOCUMENTATION = r"""
name: over_ssh
short_description: Whether a connection plugin speaks SSH
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - True for the values of C(ansible_connection) that log in by SSH; false for C(local), containers and the like.
options:
  _input:
    description: The name of a connection plugin.
    type: string
    required: true
"""

EXAMPLES = r"""
- name: Prove the new port
  labredes.pbx.ssh_proof:
    port: 3524
  when: ansible_connection | default('ssh') is labredes.pbx.over_ssh
"""

RETURN = r"""
_value:
  description: Whether it speaks SSH.
  type: bool
"""

PLUGINS = {"ssh", "smart", "ansible.builtin.ssh", "paramiko", "paramiko_ssh"}


def over_ssh(connection):
    """Whether a connection plugin speaks SSH."""
    return connection in PLUGINS


class TestModule:
    """The tests, by name."""

    def tests(self):
        """Names as used in templates."""
        return {"over_ssh": over_ssh}
