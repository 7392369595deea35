"""The callback of `make profile`: what it counts, and for which task."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools/callback"))
import run_profile  # noqa: E402


class Connection:
    """A connection as Ansible makes it for a task."""

    def __init__(self, **options):
        self.options = options

    def exec_command(self, line):
        return line.upper()

    def put_file(self, source, destination):
        raise OSError(destination)

    def fetch_file(self, source, destination):
        return None


def test_each_round_trip_is_noted_with_its_task(tmp_path):
    noted = tmp_path / "trips"
    run_profile.watch(Connection, noted)
    connection = Connection(task_uuid="one")
    assert connection.exec_command("date") == "DATE"
    try:
        connection.put_file("here", "there")
    except OSError as error:
        assert str(error) == "there"
    assert [json.loads(line)[0] for line in noted.read_text().splitlines()] == ["one", "one"]


def test_report_orders_tasks_by_seconds_and_adds_up_roles():
    tasks = [
        ("one", "labredes.pbx.sshd : Write sshd_config", 0.5),
        ("two", "Connect to the host", 0.25),
        ("three", "labredes.pbx.sshd : Write sshd_config", 0.25),
        ("four", "labredes.pbx.sshd : Reload sshd", 1.0),
    ]
    trips = [("one", 0.125), ("one", 0.125), ("three", 0.25), ("four", 0.5)]
    lines = [line.split(maxsplit=4) for line in run_profile.report(tasks, trips, 2) if line]
    assert lines[1:] == [
        ["1.00", "1", "1", "0.50", "labredes.pbx.sshd : Reload sshd"],
        ["0.75", "2", "3", "0.50", "labredes.pbx.sshd : Write sshd_config"],
        ["1.75", "3", "4", "1.00", "labredes.pbx.sshd"],
        ["0.25", "1", "0", "0.00", "playbooks"],
        ["2.00", "4", "4", "1.00", "in all"],
    ]


def test_report_of_a_run_without_tasks_is_empty():
    assert run_profile.report([], [], 40)[-1].split() == ["0.00", "0", "0", "0.00", "in", "all"]


def test_round_trip_of_no_task_is_counted_in_the_whole():
    lines = run_profile.report([("one", "Connect to the host", 0.5)], [("one", 0.25), ("", 0.25)], 40)
    assert lines[-1].split() == ["0.50", "1", "2", "0.50", "in", "all"]
