"""Whole runs of the check of secrets on two local "hosts": an exchange and its database server.

Only the check runs, as the playbooks call it; nothing is provisioned.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import rendering

SITE = """
- import_playbook: one_play.yml
  vars: {__labredes_whole_site: true}
"""
# As playbooks/tasks/preflight.yml does for each play. Local hosts need no sudo.
PLAY = f"""
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_tasks:
        file: {rendering.ROOT}/playbooks/tasks/connect.yml
        apply: {{tags: always}}
      tags: always
    - ansible.builtin.debug: {{msg: the first change}}
      tags: [pbx, database, asterisk, certificate]
"""


class Exchanges:
    """The hosts, their records, and controllers with a directory of secrets each."""

    def __init__(self, directory: Path):
        self.directory, self.output = directory, ""
        (directory / "site.yml").write_text(SITE)
        (directory / "one_play.yml").write_text(PLAY)
        common = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "labredes_validated": True,
            # Nothing is installed on this machine.
            "labredes_booted": False,
            "preflight_gather_subset": ["!all", "!min"],
        }
        phones = [{"number": str(number), "name": "Ana"} for number in (6001, 6002)]
        exchanges = {"hosts": {"pbx1": {}}, "vars": {"pbx_phones": phones}}
        groups = {"all": {"vars": common}, "pbx": exchanges, "databases": {"hosts": {"db1": {}}}, "builders": {}}
        (directory / "hosts.yml").write_text(json.dumps(groups))

    def run(self, *arguments: str, controller="ours", playbook="site.yml", hosts="hosts.yml", killed_at="") -> int:
        """Run the check from a controller; returns the exit code, -9 if it was killed. Keeps the output, in a line."""
        program = Path(sys.executable).with_name("ansible-playbook")
        variables = {
            "labredes_secrets_dir": f"{self.directory}/{controller}",
            "__labredes_record_file": f"{self.directory}/{{{{ inventory_hostname }}}}/record",
        }
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(rendering.ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(rendering.ROOT / "collections"),
            "ANSIBLE_CALLBACK_PLUGINS": str(rendering.ROOT / "tests/tools/callback"),
        }
        if killed_at:
            environment |= {"KILLED_AT": killed_at, "ANSIBLE_CALLBACKS_ENABLED": "killed_at"}
        done = subprocess.run(
            [program, playbook, "-i", hosts, "-e", json.dumps(variables), *arguments],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            start_new_session=True,
        )
        self.output = " ".join((done.stdout + done.stderr).split())
        return done.returncode

    def state(self) -> dict[str, str]:
        """Every file of the hosts and controllers, with its content."""
        files = [path for path in self.directory.glob("*/**/[!.]*") if path.is_file()]
        return {str(path.relative_to(self.directory)): path.read_text() for path in files}

    def changed(self) -> int:
        """The number of changes in the last run."""
        return sum(map(int, re.findall(r"changed=(\d+)", self.output)))

    def refusal(self, *arguments: str, **options: str) -> str:
        """The message of a run that fails before the first change, without any effect."""
        before = self.state()
        assert self.run(*arguments, **options) == 2, self.output
        assert "the first change" not in self.output.replace("{{", "") and self.state() == before
        return self.output


@pytest.fixture(scope="module")
def provisioned(tmp_path_factory):
    """The exchanges after a first run from the controller "ours"; tests leave them as they were."""
    exchanges = Exchanges(tmp_path_factory.mktemp("exchanges"))
    assert exchanges.run() == 0, exchanges.output
    return exchanges


def test_first_run_records_and_second_changes_nothing(provisioned):
    state = provisioned.state()
    digests = {host: json.loads(state[f"{host}/record"])["digests"] for host in ("pbx1", "db1")}
    assert set(digests["db1"]) == {"database_password", "database_reader_password"}
    assert set(digests["pbx1"]) > {"database_password", "phone_6001", "mailbox_6001", "ami_events", "events_operator"}
    assert {name for name in state if name.startswith("ours/db1/")} == {
        "ours/db1/database_password",
        "ours/db1/database_reader_password",
    }
    assert not [value for name, value in state.items() if name.startswith("ours") and value in str(digests)]
    assert provisioned.run("-vvv") == 0 and provisioned.changed() == 0
    assert provisioned.state() == state
    assert not [digest for host in digests.values() for digest in host.values() if digest in provisioned.output]
    assert not [
        value for name, value in state.items() if name.startswith("ours") and value.strip() in provisioned.output
    ]


def test_one_refused_host_stops_every_host(provisioned):
    ours = provisioned.directory / "ours/pbx1/phone_6001"
    value = ours.read_text()
    ours.write_text(value.swapcase())
    try:
        assert "pbx1: this controller lacks secrets that the host uses (phone_6001);" in provisioned.refusal()
    finally:
        ours.write_text(value)


@pytest.mark.parametrize(
    ("rotate", "more", "message"),
    [
        (
            "phone_6009",
            "",
            "names phone_6009, which no host of this run uses; the secrets are ami_events, ari_asterisk,",
        ),
        (
            "phone_6001",
            '{"labredes_secrets": {"phone_6001": "kR7vTz0qWm2xBn5c"}}',
            "phone_6001, which labredes_secrets",
        ),
        ("database_password", "--limit=pbx1", "a new database_password has to reach all that use it in one run, and"),
        ("database_password", "--tags=database,pbx", "and cdr, asterisk would be left out; run site.yml"),
    ],
)
def test_rotation_that_cannot_succeed_is_refused(provisioned, rotate, more, message):
    arguments = ["-e", more] if more.startswith("{") else [more] if more else []
    assert message in provisioned.refusal("-e", f"labredes_rotate_secrets={rotate}", *arguments)


def test_rotation_outside_site_is_refused(provisioned):
    message = provisioned.refusal("-e", "labredes_rotate_secrets=phone_6001", playbook="one_play.yml")
    assert "pbx would be left out" in message


def test_exchanges_with_their_own_databases_rotate_one_by_one(provisioned):
    inventory = json.loads((provisioned.directory / "hosts.yml").read_text())
    inventory |= {"databases": {}, "pbx": {"hosts": {"pbx2": {}, "pbx3": {}}}}
    (provisioned.directory / "own.yml").write_text(json.dumps(inventory))
    rotate = ["-e", "labredes_rotate_secrets=database_password", "--limit=pbx2"]
    assert provisioned.run(*rotate, hosts="own.yml") == 0, provisioned.output


def test_shared_secret_set_in_a_partial_run_is_refused(provisioned):
    value = '{"labredes_secrets": {"database_password": "kR7vTz0qWm2xBn5c"}}'
    assert "and cdr, asterisk would be left out" in provisioned.refusal("-e", value, "--tags=database")


def test_killed_rotation_is_completed(provisioned):
    """Killed when only the exchange expects the new value; test_controllers.py does it at a later task."""
    step = "Write the record#1:after"
    before = provisioned.state()
    rotate = ["--forks=1", "-e", "labredes_rotate_secrets=database_password"]
    assert provisioned.run(*rotate, killed_at=step) == -signal.SIGKILL
    assert provisioned.run() == 0, provisioned.output
    after = provisioned.state()
    assert after["ours/db1/database_password"] != before["ours/db1/database_password"]
    assert {name for name in after if after[name] != before.get(name)} == {
        "ours/db1/database_password",
        "db1/record",
        "pbx1/record",
    }
