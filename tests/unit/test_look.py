"""Action look: what it answers, with and without a terminal, and that it needs no Python on the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def look(tmp_path):
    """A function that looks at this machine by a playbook, and gives the exit code and the registered answer."""

    def run(script: str, *options: str, **keywords: object) -> tuple[int, dict]:
        task = {"name": "Look", "labredes.pbx.look": {"script": script}, "register": "answer", "ignore_errors": True}
        keep = {"name": "Keep", "ansible.builtin.copy": {"content": "{{ answer | to_json }}", "dest": f"{tmp_path}/a"}}
        tasks = [
            {**task, "vars": {"ansible_python_interpreter": "/bin/false"}, **keywords},
            {**keep, "check_mode": False, "vars": {"ansible_python_interpreter": sys.executable}},
        ]
        play = {"name": "Look", "hosts": "localhost", "gather_facts": False, "tasks": tasks}
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "play.yml", *options],
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, json.loads((tmp_path / "a").read_text())

    return run


@pytest.mark.parametrize("options", [(), ("--check",), ("-e", "ansible_pipelining=false")])
def test_output_and_errors_are_apart(look, options):
    code, answer = look('cat; echo "it\'s $word"; echo; echo two; echo bad >&2', *options, environment={"word": "one"})
    assert (code, answer["failed"], answer["changed"], answer["rc"]) == (0, False, False, 0)
    assert answer["stdout"] == "it's one\n\ntwo" and answer["stderr"] == "bad"
    assert answer["stdout_lines"] == ["it's one", "", "two"]


def test_return_code_is_a_failure_unless_expected(look):
    answer = look("echo why >&2; exit 3")[1]
    assert (answer["failed"], answer["rc"], answer["msg"]) == (True, 3, "why")
    answer = look("exit 3", failed_when=False, changed_when="answer.rc == 3")[1]
    assert (answer["failed"], answer["rc"], answer["changed"]) == (False, 3, True)
