# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Locks a file of the controller for the rest of a task, which no module does: a module's process ends before that."""

from __future__ import annotations

DOCUMENTATION = """
name: task_lock
short_description: Lock a file of the controller until the end of the task
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Waits until no other task, of this run or of another, holds the lock (C(flock)), and holds it until the task has
    ended for this host, however it ends. For C(when), which is evaluated in the process that then runs the task.
options:
  _terms: {description: Paths of the lock files. A missing file is created., required: true}
"""

RETURN = '_raw: {description: "V(true) for each lock.", type: list, elements: bool}'

import fcntl
import os

from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

held: dict[str, int] = {}  # closed by the end of the process


class LookupModule(LookupBase):
    """The lookup plugin; see DOCUMENTATION."""

    def run(self, terms, variables=None, **kwargs):
        """Take each lock that this process does not hold."""
        for path in set(terms) - set(held):
            held[path] = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
            try:
                fcntl.flock(held[path], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                Display().display(f"    {(variables or {}).get('inventory_hostname')}: waiting for the lock {path}")
                fcntl.flock(held[path], fcntl.LOCK_EX)
        return [True for _ in terms]
