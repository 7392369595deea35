# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Refuses to change a host of which nothing is known."""

from __future__ import annotations


def missing_facts(task_vars):
    """Why a task may not change the host, or nothing: files would lack its addresses, packages would be taken for new.

    So it is in a play that a run enters behind its connection.
    """
    if task_vars.get("ansible_facts"):
        return ""
    return f"{task_vars['inventory_hostname']}: no facts of the host; run without --start-at-task, or a part by --tags."
