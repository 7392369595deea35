"""Several controllers of one exchange: the lock of a run, secrets that one of them lacks, and rotated secrets."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sipp
from playbook import ROOT, play

RECORD = "/var/lib/labredes/secrets.json"
STATE = (
    f"sha256sum /etc/asterisk/* /etc/ssl/labredes/* /etc/postgresql/*/main/*.conf {RECORD}; stat -c '%a %U' {RECORD}"
)


class Controller:
    """Another controller of the exchange: home, known hosts, control sockets and secrets are its own."""

    def __init__(self, directory: Path, lab: Path):
        self.directory = directory
        inventory = (lab / "inventory/hosts.yml").read_text().replace(f"{lab}/known_hosts", f"{directory}/known_hosts")
        inventory = inventory.replace(f"{lab}/secrets", f"{directory}/secrets")
        (directory / "inventory").mkdir()
        (directory / "inventory/hosts.yml").write_text(inventory)
        self.environment = {"HOME": str(directory), "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{directory}/cp"}

    def play(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run site.yml; its output is in one line, without wraps."""
        done = play(self.directory, *arguments, environment=self.environment, seconds=120)
        done.stdout = " ".join(done.stdout.split())
        return done


@pytest.fixture
def second(tmp_path, lab_directory) -> Controller:
    """A second controller, which has no secrets yet."""
    return Controller(tmp_path, lab_directory)


@pytest.fixture
def secret(lab_directory, lab):
    """A function that reads a secret of the first controller; after the test the lab knows what was rotated."""
    (directory,) = (lab_directory / "secrets").iterdir()

    def read(name: str) -> str:
        return (directory / name).read_text().strip()

    yield read
    lab["phones"]["6001"]["password"] = read("phone_6001")
    lab["database"]["password"] = read("database_password")


def registers(lab, number: str, password: str) -> bool:
    """Whether a phone can register with a password."""
    account = sipp.Account(number, password, lab["host"], lab["sip"]["udp"])
    return sipp.register(account, sipp.free_port(lab["host"]), expires=0).code == 200


def test_controller_without_secrets_changes_nothing(second, on_lab):
    before = on_lab(STATE)
    done = second.play("-vvv")
    assert done.returncode and "this controller lacks secrets that the host uses (database_password," in done.stdout
    assert f"copy {second.directory}/secrets/" in done.stdout
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}
    assert on_lab(STATE) == before and "600 root" in before
    assert not (second.directory / "secrets").exists()
    digests = json.loads(on_lab(f"cat {RECORD}"))["digests"]
    assert len(digests) > 8 and not [digest for digest in digests.values() if digest in done.stdout]


def test_host_without_record_refuses_a_new_controller(second, on_lab):
    on_lab(f"mv {RECORD} {RECORD}.kept")
    try:
        done = second.play("--check", "--tags=pbx")
    finally:
        on_lab(f"mv {RECORD}.kept {RECORD}")
    assert done.returncode and "this controller lacks secrets that the host uses (database_password," in done.stdout


def test_controller_with_copied_secrets_changes_nothing(second, lab_directory, on_lab):
    before = on_lab(STATE)
    shutil.copytree(lab_directory / "secrets", second.directory / "secrets")
    done = second.play("--tags=database,pbx")
    assert done.returncode == 0 and set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, done.stdout[-2000:]
    assert on_lab(STATE) == before


def test_killed_rotation_of_a_phone_is_completed(lab_directory, lab, secret):
    old = secret("phone_6001")
    step = "Generate the secrets that are replaced or missing#1:after"
    rotate = ["--tags=pbx", "-e", "labredes_rotate_secrets=phone_6001"]
    done = play(lab_directory, *rotate, killed_at=step)
    assert done.returncode == -signal.SIGKILL
    assert registers(lab, "6001", old), "nothing has changed on the host yet"
    done = play(lab_directory, "--tags=pbx")
    assert done.returncode == 0, done.stdout[-2000:]
    assert secret("phone_6001") != old and secret("phone_6001") not in done.stdout
    assert registers(lab, "6001", secret("phone_6001")) and not registers(lab, "6001", old)
    assert registers(lab, "6002", secret("phone_6002"))


def test_rotated_database_password_reaches_all_who_use_it(lab_directory, secret, on_lab, telephones, records):
    def login(password: str) -> str:
        return on_lab(f"PGPASSWORD={password} psql -h localhost -U asterisk -Atc 'SELECT 1' asterisk 2>&1 || true")

    old = secret("database_password")
    done = play(lab_directory, "--tags=database,cdr,asterisk", "-e", "labredes_rotate_secrets=database_password")
    assert done.returncode == 0, done.stdout[-2000:]
    assert login(secret("database_password")) == "1\n" and "authentication failed" in login(old)
    callee = telephones.answering("6002")
    caller = telephones.dial("6003", "6002")
    assert callee.talks()
    caller.hang_up()
    assert [(row["src"], row["dst"]) for row in records()] == [("6003", "6002")]


def test_run_of_another_controller_is_refused(second, lab_directory, on_lab):
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [program, "site.yml", "-i", lab_directory / "inventory", "--skip-tags=upgrade"]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    first = subprocess.Popen(command, cwd=ROOT, **quiet)
    try:
        assert sipp.within(30, lambda: on_lab("pgrep -f '^bash -c echo locked' || true"))
        done = second.play("--tags=pbx")
    finally:
        first.kill()
        first.wait()
    assert done.returncode and f"pid {first.pid}) is at work on it" in done.stdout
    time.sleep(2)  # until the lock of the killed run ends
