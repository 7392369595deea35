#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tells what must be known of a host before its firewall changes."""

DOCUMENTATION = r"""
module: firewall_survey
short_description: Tell which firewalls are at work on a host, and by what way this run came in
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Finds the address and port of the SSH connection that this run came in by, as the host itself sees them, also
    where sudo has hidden them.
  - Finds other firewalls that are at work. Rules in C(/etc/nftables.conf) that nftables.service loads count as one,
    unless they are of the collection's own table.
  - Runs in check mode as well and never changes anything.
"""

EXAMPLES = r"""
- name: Look at the host
  labredes.pbx.firewall_survey:
  register: survey
"""

RETURN = r"""
address:
  description: The address this run comes from; empty when it came in by something else than SSH.
  type: str
  returned: always
port:
  description: The port it came in at, on the host itself; 0 when it came in by something else than SSH.
  type: int
  returned: always
others:
  description: Firewalls that are at work, of V(ufw), V(firewalld) and V(nftables).
  type: list
  elements: str
  returned: always
"""

import os
import re

from ansible.module_utils.basic import AnsibleModule


def read(path):
    """What a file says, empty when it cannot be read."""
    try:
        with open(path, errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def ssh_connection():
    """(address, port) of the SSH login above this process: its environment, or that of the nearest parent that has it."""
    process = os.getpid()
    while process > 1:
        found = re.search(r"(?:^|\0)SSH_CONNECTION=(\S+) \d+ \S+ (\d+)(?:\0|$)", read("/proc/%d/environ" % process))
        if found:
            return found.group(1), int(found.group(2))
        # The name in brackets may hold anything; the parent is the second word after it.
        process = int((read("/proc/%d/stat" % process).rpartition(")")[2].split() or ["", "0"])[1])
    return "", 0


def main():
    """Look and tell."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)

    def on(question, unit):
        return module.run_command(["systemctl", question, "--quiet", unit])[0] == 0

    others = []
    if re.search(r"^\s*ENABLED=[\"']?yes", read("/etc/ufw/ufw.conf"), re.MULTILINE | re.IGNORECASE):
        others.append("ufw")
    if on("is-active", "firewalld.service"):
        others.append("firewalld")
    rules = read("/etc/nftables.conf")
    if rules and not re.search(r"^table inet labredes\b", rules, re.MULTILINE):
        if on("is-enabled", "nftables.service") or on("is-active", "nftables.service"):
            others.append("nftables")
    address, port = ssh_connection()
    module.exit_json(changed=False, address=address, port=port, others=others)


if __name__ == "__main__":
    main()
