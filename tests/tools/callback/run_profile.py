"""A callback that prints which tasks of a run cost most: seconds, and round trips to a host over SSH."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import defaultdict

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import connection_loader

DOCUMENTATION = """
name: run_profile
type: aggregate
short_description: Print what the tasks of a run cost
description:
  - A round trip is a command, or a file that is copied to a host or from it.
  - E(PROFILE_LINES) is the number of tasks that are printed, 40 by default.
  - E(PROFILE_FILE) is a file to write the numbers of tasks and trips and the seconds of each role to, as JSON.
"""
TRIPS = ("exec_command", "put_file", "fetch_file")


def watch(connection, path):
    """Have every round trip of a kind of connection write a line with its task and its seconds to a file.

    A task runs in a process of its own, a fork of this one.
    """
    created = connection.__init__

    def create(self, *words, **options):
        created(self, *words, **options)
        self.profiled_task = options.get("task_uuid", "")

    def timed(call):
        def trip(self, *words, **options):
            begun = time.monotonic()
            try:
                return call(self, *words, **options)
            finally:
                line = json.dumps([str(getattr(self, "profiled_task", "")), time.monotonic() - begun])
                with open(path, "a", encoding="utf-8") as stream:
                    stream.write(line + "\n")

        return trip

    connection.__init__ = create
    for name in TRIPS:
        setattr(connection, name, timed(getattr(connection, name)))


def rows_of(tasks, trips):
    """Seconds, times, round trips and the seconds in these, of each task by its name.

    tasks: (id, name, seconds) in their order, one for each time; trips: (id, seconds) of each round trip.
    """
    of_task = defaultdict(list)
    for task, seconds in trips:
        of_task[task].append(seconds)
    # A task of a file that is included again has the same name, and not always the same id.
    rows: dict = defaultdict(lambda: [0.0, 0, 0, 0.0])
    for task, name, seconds in tasks:
        row, over_ssh = rows[name], of_task.pop(task, [])
        for index, value in enumerate((seconds, 1, len(over_ssh), sum(over_ssh))):
            row[index] += value
    for over_ssh in of_task.values():
        rows["(no task)"][2:] = [rows["(no task)"][2] + len(over_ssh), rows["(no task)"][3] + sum(over_ssh)]
    return rows


def roles_of(rows):
    """The same of each role, for the rows of tasks."""
    roles: dict = defaultdict(lambda: [0.0, 0, 0, 0.0])
    for name, row in rows.items():
        role = roles[name.rpartition(" : ")[0] or "playbooks"]
        role[:] = [before + value for before, value in zip(role, row, strict=True)]
    return roles


def total_of(rows):
    """The same of all tasks."""
    return [sum(values) for values in zip(*rows.values(), strict=True)] or [0.0, 0, 0, 0.0]


def report(tasks, trips, count):
    """The lines of the report; tasks and trips as for rows_of."""
    rows = rows_of(tasks, trips)
    lines = [f"{'seconds':>8} {'tasks':>6} {'trips':>6} {'in them':>8}  "]
    for group in (sorted(rows.items(), key=lambda row: -row[1][0])[:count], sorted(roles_of(rows).items())):
        lines += ["{:8.2f} {:6} {:6} {:8.2f}  {}".format(*row, name) for name, row in group] + [""]
    return [*lines, "{:8.2f} {:6} {:6} {:8.2f}  in all".format(*total_of(rows))]


class CallbackModule(CallbackBase):
    """Times every task, and prints the report at the end of the run."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "run_profile"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        handle, self.path = tempfile.mkstemp(prefix="run_profile.")
        os.close(handle)
        self.tasks: list = []
        self.begun = time.monotonic()
        watch(connection_loader.get("ssh", class_only=True), self.path)

    def _end(self):
        now = time.monotonic()
        if self.tasks:
            self.tasks[-1][2] = now - self.begun
        self.begun = now

    def v2_playbook_on_task_start(self, task, is_conditional):
        """The task before ends, and this one begins: what Ansible does between two counts for the first."""
        self._end()
        self.tasks.append([str(task._uuid), task.get_name(), 0.0])

    def v2_playbook_on_stats(self, stats):
        """Print the report."""
        self._end()
        with open(self.path, encoding="utf-8") as stream:
            trips = [json.loads(line) for line in stream]
        os.unlink(self.path)
        if file := os.environ.get("PROFILE_FILE"):
            rows = rows_of(self.tasks, trips)
            parts = {name.rpartition(".")[2]: round(row[0], 2) for name, row in roles_of(rows).items()}
            with open(file, "w", encoding="utf-8") as stream:
                json.dump({"tasks": total_of(rows)[1], "trips": total_of(rows)[2], "parts": parts}, stream)
        for line in report(self.tasks, trips, int(os.environ.get("PROFILE_LINES", "40"))):
            self._display.display(line)
