#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documentation of the action labredes.pbx.look, which needs no module on the host."""

DOCUMENTATION = r"""
module: look
short_description: Look at a host by its shell
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Runs a script that changes nothing, in a quarter of the time of M(ansible.builtin.shell), which starts Python on the
    host first. Reports no change.
options:
  script: {description: "The script, for sh. It has no input.", type: str, required: true}
attributes:
  check_mode: {support: full, description: The script is run as well.}
"""

EXAMPLES = r"""
- name: List the installed packages
  labredes.pbx.look:
    script: dpkg-query --show --showformat='${Package}\n'
  register: packages
"""

RETURN = r"""
rc: {description: Return code of the script., returned: always, type: int}
stdout: {description: "Its output, without the newline at its end.", returned: always, type: str}
stdout_lines: {description: The lines of its output., returned: always, type: list, elements: str}
stderr: {description: Its errors., returned: always, type: str}
"""
