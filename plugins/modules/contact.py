#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documentation of the action labredes.pbx.contact."""

DOCUMENTATION = r"""
module: contact
short_description: Prove the login, sudo and Python of a host by gathering its facts
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Gathers facts with ansible.builtin.setup. A login that is refused, a missing sudo or Python and the
    like are told in one sentence with the cure, not as ssh's or a shell's output.
  - Runs in check mode as well and never changes anything.
options:
  gather_subset:
    description: The subsets of facts, as ansible.builtin.setup names them.
    type: list
    elements: str
    default: [all]
"""

EXAMPLES = r"""
- name: Log in and gather the facts
  labredes.pbx.contact:
    gather_subset: [min]
"""

RETURN = r"""
ansible_facts:
  description: The facts of ansible.builtin.setup.
  type: dict
  returned: success
"""
