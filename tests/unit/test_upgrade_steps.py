"""The order of an upgrade's steps, and the way back from each that fails; the roles are replaced by their names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rendering
import yaml

STEPS = {"asterisk": ["upgrade_stop", "upgrade_keep", "main", "go_back", "upgrade_release"], "pbx": ["main"]}
MODULE = """#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={"files": {"type": "list", "elements": "dict"}})
with open("LOG", "a") as stream:
    stream.write("start\\n")
module.exit_json()
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs the steps of playbook upgrade_asterisk.yml, one of which fails; gives steps and output."""
    top, log = tmp_path / "ansible_collections/labredes/pbx", tmp_path / "log"

    def step(path: Path, name: str, register: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        line = f'echo {name} >> {log}; [ "{{{{ failing }}}}" != {name} ] || {{ echo {name} fails >&2; exit 1; }}'
        task = {"name": name, "ansible.builtin.shell": line, **({"register": register} if register else {})}
        path.write_text(yaml.safe_dump([task]))

    for role, names in STEPS.items():
        for name in names:
            said = role if name == "main" else name
            step(top / f"roles/{role}/tasks/{name}.yml", said, "__asterisk_taken" * (name == "upgrade_keep"))
    (top / "plugins/modules").mkdir(parents=True)
    (top / "plugins/modules/asterisk_service.py").write_text(MODULE.replace("LOG", str(log)))
    place = tmp_path / "tasks"
    place.mkdir()
    # A playbook of the same name would be taken for the tasks.
    for path in rendering.ROOT.glob("playbooks/*.yml"):
        shutil.copy(path, tmp_path)
    for name in ("upgrade_asterisk", "upgrade_failed", "rollback_asterisk"):
        shutil.copy(rendering.ROOT / f"playbooks/tasks/{name}.yml", place)
    step(place / "verify_exchange.yml", "verify")

    def now(failing: str, tasks: str = "upgrade_asterisk") -> tuple[int, list[str], str]:
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {
                "failing": failing,
                "__asterisk_from": "1:1",
                "__asterisk_gone": "1:2",
                "asterisk_deb_version": "1:2",
                "ansible_python_interpreter": sys.executable,
            },
            "tasks": [{"ansible.builtin.include_tasks": f"tasks/{tasks}.yml"}],
        }
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "play.yml"],
            cwd=tmp_path,
            env={**os.environ, "ANSIBLE_CONFIG": str(tmp_path / "none"), "ANSIBLE_COLLECTIONS_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert log.exists(), done.stdout + done.stderr
        return done.returncode, log.read_text().split(), " ".join(done.stdout.split())

    return now


BACK = ["go_back", "upgrade_release", "verify", "upgrade_release"]


@pytest.mark.parametrize(
    ("failing", "steps"),
    [
        ("upgrade_stop", ["upgrade_stop"]),
        ("upgrade_keep", ["upgrade_stop", "upgrade_keep", "start", "upgrade_release", "verify", "upgrade_release"]),
        ("asterisk", ["upgrade_stop", "upgrade_keep", "asterisk", *BACK]),
        ("pbx", ["upgrade_stop", "upgrade_keep", "asterisk", "pbx", *BACK]),
        ("verify", ["upgrade_stop", "upgrade_keep", "asterisk", "pbx", "verify", *BACK]),
    ],
)
def test_failed_step_is_followed_by_the_way_back(run, failing, steps):
    code, found, output = run(failing)
    assert (code, found) == (2, steps), output
    if failing != "upgrade_stop":
        assert f"the upgrade to Asterisk 1:2 has failed ({failing}: " in output
        kept = "package, logs and core dumps of the other are in" in output
        assert "and the exchange runs 1:1 again" in output and kept == (failing != "upgrade_keep")
        assert ("which does not pass its verification either" in output) == (failing == "verify")


def test_upgrade_that_passes_lets_calls_in_last(run):
    code, found, output = run("none")
    assert (code, found) == (0, ["upgrade_stop", "upgrade_keep", "asterisk", "pbx", "verify", "upgrade_release"])
    assert "Asterisk 1:2 runs instead of 1:1" in output


@pytest.mark.parametrize(
    ("failing", "code", "steps"),
    [
        ("none", 0, ["upgrade_stop", "go_back", "upgrade_release", "verify"]),
        ("upgrade_stop", 2, ["upgrade_stop"]),
        ("go_back", 2, ["upgrade_stop", "go_back", "upgrade_release"]),
        ("verify", 2, ["upgrade_stop", "go_back", "upgrade_release", "verify"]),
    ],
)
def test_rollback_lets_calls_in_again_whatever_fails(run, failing, code, steps):
    assert run(failing, "rollback_asterisk")[:2] == (code, steps)


@pytest.mark.parametrize("playbook", ["upgrade_asterisk", "rollback_asterisk"])
@pytest.mark.parametrize(
    ("serial", "failing", "begun"),
    [
        (None, "none", ["a", "b", "c", "d"]),
        (None, "b", ["a", "b"]),
        ("1,100%", "a", ["a"]),
        ("1,2", "b", ["a", "b", "c"]),
        (3, "a", ["a", "b", "c"]),
    ],
)
def test_next_batch_begins_when_all_before_have_passed(tmp_path, playbook, serial, failing, begun):
    first, last = {"hosts": "pbx", "gather_facts": False}, rendering.load(rendering.ROOT / f"playbooks/{playbook}.yml")
    (play,) = [play for play in last if "serial" in play]
    turn, passed = play["pre_tasks"][0], play["tasks"][-1]
    turn["ansible.builtin.import_tasks"] = str(rendering.ROOT / "playbooks/tasks/upgrade_turn.yml")
    step = {"ansible.builtin.assert": {"that": f"inventory_hostname != '{failing}'", "fail_msg": "failed"}}
    note = {"ansible.builtin.debug": {"msg": "{{ inventory_hostname }} begins"}}
    steps = {"pre_tasks": [turn], "tasks": [note, step, {"ansible.builtin.debug": {"msg": "goes on"}}, passed]}
    (tmp_path / "play.yml").write_text(json.dumps([first, {**play, "become": False, **steps}]))
    variables = {"asterisk_upgrade_serial": serial} if serial else {}
    hosts = {name: {"ansible_connection": "local"} for name in "abcd"}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"pbx": {"hosts": hosts, "vars": variables}}))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yml", "play.yml"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert sorted(re.findall(r"(\w) begins", done.stdout)) == begun, done.stdout + done.stderr
    assert done.returncode == (0 if failing == "none" else 2)
    # The others of its batch are completed.
    said = re.findall(r'(?m)^ +"msg": "goes on"', done.stdout)
    assert len(said) == len(begun) - (failing != "none")
    sentence = f"d: nothing was changed, since {failing} has failed before it."
    assert (sentence in done.stdout) == (len(begun) == 3), done.stdout
