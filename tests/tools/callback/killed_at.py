"""A callback that kills its run at a step, to test what an interrupted run leaves.

KILLED_AT=<task>#<nth time>:<before|after>, for example `Write sshd_config#2:after`; the task `*` is any.
"""

from __future__ import annotations

import os
import signal

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: killed_at
type: notification
short_description: Kill the run at a step
description: For tests; see the file.
"""


class CallbackModule(CallbackBase):
    """Counts the tasks of one name and kills the whole process group."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "killed_at"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        step, _, self.when = os.environ["KILLED_AT"].rpartition(":")
        self.name, _, times = step.rpartition("#")
        self.left = int(times)

    def _count(self, task, when: str) -> None:
        if self.name in ("*", task.get_name().split(" : ")[-1]) and when == self.when:
            self.left -= 1
            if not self.left:
                os.killpg(0, signal.SIGKILL)

    def v2_playbook_on_task_start(self, task, is_conditional):
        """Before a task."""
        self._count(task, "before")

    def v2_runner_on_ok(self, result):
        """After it."""
        self._count(result._task, "after")
