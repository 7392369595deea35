"""Module service_reload with a systemctl of this test: what it asks systemd for, and what it reports."""

from __future__ import annotations

import os

import pytest
from ansible_collections.labredes.pbx.plugins.action.service_reload import nothing_to_do
from ansible_collections.labredes.pbx.plugins.modules import service_reload

# Answers for each unit from a file, and notes each other command.
SYSTEMCTL = """#!/bin/sh
cd "$(dirname "$0")"
case $1 in
  show) for unit; do :; done; cat "$unit" ;;
  *) echo "$*" >> calls; [ ! -e "fails-$1" ] || { echo "Job failed." >&2; exit 1; } ;;
esac
"""
FINISHED = {
    "ActiveState": "active",
    "InvocationID": "one",
    "NeedDaemonReload": "no",
    "LoadState": "loaded",
    "UnitFileState": "enabled",
}


@pytest.fixture
def host(tmp_path, monkeypatch, run_module):
    """A function that runs the module for one.timer in states of units, and gives its answer and the commands."""
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def run(state: dict, other: dict, check: bool = False, **options: object) -> tuple[dict, list[str]]:
        for name, values in {"one.timer": {**FINISHED, **state}, "one.service": {**FINISHED, **other}}.items():
            (tmp_path / name).write_text("".join(f"{key}={value}\n" for key, value in values.items()))
        arguments = {
            "unit": "one.timer",
            "units": ["one.service"],
            "files": [],
            "enabled": True,
            "start": True,
            **options,
        }
        answer = run_module(service_reload, check, **arguments)
        calls = tmp_path / "calls"
        return answer, calls.read_text().splitlines() if calls.exists() else []

    return run


@pytest.mark.parametrize(
    ("state", "other", "calls"),
    [
        ({}, {}, []),
        ({"UnitFileState": "disabled"}, {}, ["enable one.timer"]),
        ({"ActiveState": "failed"}, {}, ["start one.timer"]),
        ({"ActiveState": "inactive", "UnitFileState": ""}, {}, ["enable one.timer", "start one.timer"]),
        ({"ActiveState": "activating"}, {}, []),
        ({"NeedDaemonReload": "yes"}, {}, ["daemon-reload"]),
        ({}, {"NeedDaemonReload": "yes"}, ["daemon-reload"]),
        ({"LoadState": "masked"}, {}, ["daemon-reload"]),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_unit_gets_what_it_lacks_and_no_more(host, state, other, calls, check):
    answer, asked = host(state, other, check=check)
    assert answer["changed"] == any(not call.startswith("daemon-") for call in calls)
    assert asked == ([] if check else calls)
    look = nothing_to_do({"enabled": True, "start": True}, [{**FINISHED, **state}, {**FINISHED, **other}], {}, [])
    assert look == (not calls and state == {})


@pytest.mark.parametrize(
    ("invocation", "known", "found", "nothing"),
    [
        ("one", [5, 1000000002], ["5 1.000000002 /etc/a b"], True),
        ("one", [5, 1000000002], ["5 1.000000003 /etc/a b"], False),
        ("one", [5, 1000000002], ["6 1.000000002 /etc/a b"], False),
        ("one", [5, 1000000002], [], False),
        ("one", None, [], True),
        ("one", None, ["5 1.000000002 /etc/a b"], False),
        ("former", [5, 1000000002], ["5 1.000000002 /etc/a b"], False),
    ],
)
def test_look_compares_files_with_what_was_read(invocation, known, found, nothing):
    note = {"invocation": invocation, "files": {"/etc/a b": known}}
    assert nothing_to_do({"files": ["/etc/a b"]}, [FINISHED], note, found) == nothing
    assert not nothing_to_do({"files": ["/etc/a b", "/etc/new"]}, [FINISHED], note, found)
    assert not nothing_to_do({"reloaded": ["/etc/a b"]}, [{**FINISHED, "ActiveState": "failed"}], note, found)


def test_unit_is_left_alone_unless_asked(host):
    missing = {"ActiveState": "inactive", "UnitFileState": "disabled", "NeedDaemonReload": "yes"}
    answer, asked = host(missing, {}, enabled=False, start=False)
    assert (answer["changed"], asked) == (False, [])


def test_failed_start_is_reported_in_a_sentence(host, tmp_path):
    (tmp_path / "fails-start").touch()
    answer, _ = host({"ActiveState": "failed"}, {})
    assert (
        answer["failed"] and answer["msg"] == "one.timer does not start (Job failed); see journalctl --unit=one.timer."
    )
