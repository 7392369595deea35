#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action labredes.pbx.build_wait."""

DOCUMENTATION = r"""
module: build_wait
short_description: Wait for a build that runs as a systemd unit, and display its progress
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Displays a line whenever the build enters another step, and every 15 seconds.
  - Role asterisk_package starts the build; its C(progress.sh), in the directory of the package, reports the progress.
options:
  unit:
    description: Name of the transient systemd unit in which the build runs.
    type: str
    required: true
  package:
    description: Path of the package on the host; it exists when the build is complete.
    type: path
    required: true
  timeout:
    description: Seconds after which the task fails. The build itself goes on.
    type: int
    required: true
attributes:
  check_mode:
    support: none
    description: In check mode the task is skipped, since nothing is built.
"""

EXAMPLES = r"""
- name: Wait for the build
  labredes.pbx.build_wait:
    unit: labredes-asterisk-0123456789ab
    package: /var/cache/labredes-pbx/0123456789ab/asterisk.deb
    timeout: 3600
"""

RETURN = r"""
seconds:
  description: How long the task waited.
  returned: success
  type: int
"""
