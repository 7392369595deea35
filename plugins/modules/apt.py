#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documentation of the action labredes.pbx.apt, which runs ansible.builtin.apt."""

DOCUMENTATION = r"""
module: apt
short_description: Install packages as M(ansible.builtin.apt) does, and wait for apt's lock
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Takes every option of M(ansible.builtin.apt) and passes it on. The host is not asked if C(preflight_packages), which
    role preflight sets, has all the packages of O(name).
  - While the host installs packages in the background, which playbook C(packages.yml) starts, this waits until those of
    O(name) are there; without O(name), until all are.
  - A new VM upgrades itself and holds apt's lock for minutes. This waits up to 5 minutes for the lock, and displays
    which process holds it; C(lock_timeout) of M(ansible.builtin.apt) does not wait before ansible-core 2.19.
  - Where a former installation was interrupted, as by a power failure, it runs C(dpkg --configure -a) first.
  - After any other failure it tries three times more, with fresh package lists.
  - Fails without facts of the host, as in a play that C(--start-at-task) enters behind its connection.
options:
  name:
    description: Names of packages.
    type: list
    elements: str
  update_cache:
    description: Download the package lists first.
    type: bool
    default: true
  cache_valid_time:
    description: Seconds for which package lists count as fresh.
    type: int
    default: 3600
attributes:
  check_mode:
    support: full
    description: As M(ansible.builtin.apt).
"""

EXAMPLES = r"""
- name: Install fail2ban
  labredes.pbx.apt:
    name: [fail2ban, nftables]
    install_recommends: false
"""

RETURN = r"""
msg:
  description: One sentence about a failure, with the process that holds the lock or apt's own error.
  returned: failure
  type: str
"""
