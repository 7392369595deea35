#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documentation of the action labredes.pbx.run_lock, which runs on the controller alone."""

DOCUMENTATION = r"""
module: run_lock
short_description: Refuse a second run on a host while one is at work
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Writes a lock file for the host on the controller, with the process id and start time of the run's
    main process. It needs no release. It counts only as long as that very process lives.
  - The run that holds the lock may take it again. In check mode the lock is neither taken nor asked for.
options:
  directory:
    description: Directory of the lock files on the controller; it is made with mode 0700.
    type: path
    default: ~/.local/state/labredes.pbx/locks
"""

EXAMPLES = r"""
- name: Refuse a second run while one is at work
  labredes.pbx.run_lock:
"""

RETURN = r"""
pid:
  description: Process id of the run that holds the lock now.
  type: int
  returned: success, not in check mode
"""
