"""The administrator's way in, on a host of its own: whatever moment a run dies at, the owner can log in and go on."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import playbook
import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "pbx-way-in-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
SECONDS = 8  # after which the host itself goes back
QUICK = {"sshd_rollback_seconds": SECONDS, "firewall_rollback_seconds": SECONDS}
# Each step of the move and the moment at it: from a new host on port 22.
MOVE = [
    "Start the timer that goes back, and try them#1:after",
    "Keep a copy of the configuration and start the timer#1:after",
    "Write the configuration#1:after",
    "Have sshd take it#1:after",
    "Write the configuration#2:after",
    "Have sshd take it#2:after",
    "Disarm the rollback#1:after",
    "Start the timer that goes back, and try them#2:after",
]
# The same on a finished host whose description has changed.
CHANGE = ["Have sshd take it#1:after", "Disarm the rollback#1:before"]


class Owner:
    """The owner of a bare host: logs in by key, runs playbooks, and makes the host new again."""

    def __init__(self, room: Path):
        self.room = room
        self.address = self._inside("cp /etc/ssh/sshd_config /var/lib; hostname -I").split()[0]

    def _inside(self, line: str) -> str:
        """A shell line on the host by another way than SSH."""
        done = subprocess.run(
            ["podman", "exec", NAME, "sh", "-ec", line], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ports(self) -> list[int]:
        """The ports on which the key opens the door and sudo works.

        Asked once more where none does: sshd refuses for a moment while it reads its configuration again.
        """
        options = [
            "-q",
            "-F",
            "none",
            "-i",
            self.room / "key",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=2",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]
        for pause in (0.5, 0):
            tried = {
                port: subprocess.Popen(["ssh", *options, "-p", str(port), f"admin@{self.address}", "sudo -n true"])
                for port in (22, 3524)
            }
            let_in = [port for port, login in tried.items() if login.wait(30) == 0]
            if let_in:
                break
            time.sleep(pause)
        return let_in

    def play(self, killed_at: str = "", **variables: object) -> int:
        """Run playbooks/harden.yml; gives its exit code, -9 when it was killed. What it said is in `told`."""
        environment = (
            {
                "KILLED_AT": killed_at,
                "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/tools/callback"),
                "ANSIBLE_CALLBACKS_ENABLED": "killed_at",
            }
            if killed_at
            else {}
        )
        done = playbook.play(
            self.room,
            "-e",
            json.dumps(variables),
            playbook="playbooks/harden.yml",
            environment=environment,
            seconds=300,
            start_new_session=True,
        )
        self.told = done.stdout
        return done.returncode

    def made_new(self) -> None:
        """Put sshd and the firewall back to what the installer left; a new host has new keys, which nobody knows yet."""
        (self.room / "known_hosts").unlink(missing_ok=True)
        self._inside(
            "systemctl stop labredes-sshd-rollback.timer labredes-firewall-rollback.timer 2>/dev/null || true;"
            "rm -f /etc/ssh/*labredes*; [ ! -e /usr/local/sbin/labredes-firewall ] || labredes-firewall off;"
            "cp /var/lib/sshd_config /etc/ssh; systemctl reload ssh"
        )

    def waits_for_the_host(self) -> None:
        """Until the timer, if one was armed, has done its work; there is a way in at every moment."""
        end = time.monotonic() + SECONDS + 10
        while self._inside(
            "ls /etc/ssh/*.before-labredes 2>/dev/null || true; systemctl list-units --no-legend 'labredes-*-rollback.timer'"
        ):
            assert self.ports(), "locked out while the rollback is waited for"
            assert time.monotonic() < end, "the rollback did not fire"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def owner():
    """The owner of a new host, made for this module and removed after it."""
    room = ROOT / ".lab" / "way-in"
    lab = [sys.executable, ROOT / "lab/lab.py"]
    subprocess.run([*lab, "down", "--dir", room, "--name", NAME], check=False)
    subprocess.run([*lab, "create", "--bare", "--dir", room, "--name", NAME], check=True, timeout=300)
    yield Owner(room)
    subprocess.run([*lab, "down", "--dir", room, "--name", NAME], check=True)


@pytest.mark.parametrize("step", MOVE)
def test_a_move_that_dies_locks_nobody_out(owner, step):
    owner.made_new()
    assert owner.ports() == [22]
    assert owner.play(killed_at=step, **QUICK) == -signal.SIGKILL
    assert owner.ports(), "locked out at once"
    owner.waits_for_the_host()
    assert owner.ports(), "locked out after the rollback"
    assert owner.play() == 0, owner.told
    assert owner.ports() == [3524]


@pytest.mark.parametrize("step", CHANGE)
def test_a_change_that_dies_locks_nobody_out(owner, step):
    assert owner.play() == 0, owner.told
    assert owner.play(killed_at=step, **QUICK, sshd_max_auth_tries=5) == -signal.SIGKILL
    assert owner.ports() == [3524], "locked out at once"
    assert owner.play(sshd_max_auth_tries=5) == 0, owner.told
    assert owner.ports() == [3524]


def test_a_port_that_is_taken_is_refused_before_anything_changes(owner):
    owner.made_new()
    owner._inside("systemd-run --quiet --unit=taken --collect python3 -m http.server 3524")
    try:
        assert owner.play() != 0 and "another program listens on port 3524" in owner.told
        assert owner.ports() == [22] and not owner._inside("ls /etc/ssh/*.before-labredes 2>/dev/null || true")
    finally:
        owner._inside("systemctl stop taken")


def test_a_configuration_that_shuts_the_owner_out_is_taken_back(owner):
    """By the run, which cannot prove it; and by the host, when the run is dead."""
    shut = {"__sshd_extra": {"DenyUsers": "admin"}, **QUICK}
    owner.made_new()
    assert owner.play(**shut) != 0 and "sshd stays as it was, on port 22" in owner.told
    assert owner.ports() == [22]
    assert owner.play(killed_at="Have sshd take it#1:after", **shut) == -signal.SIGKILL
    assert owner.ports() == [], "the fault that this test plants does nothing"
    time.sleep(SECONDS)
    assert owner.ports() == [22]
