"""Parts of role preflight: the run lock's process and remote command, and the explanation of failed connections."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time

import pytest
import rendering
import yaml
from ansible_collections.labredes.pbx.plugins.action import run_lock
from ansible_collections.labredes.pbx.plugins.filter.ssh_failure import ssh_failure


@pytest.fixture(name="take")
def fixture_take(tmp_path):
    """A function that takes the lock for a process as the action does, on a directory of this machine without SSH."""
    started = []

    def take(pid: int, holder: str) -> str:
        remote = run_lock.REMOTE.format(holder=shlex.quote(holder))
        remote = remote.replace("/etc/ssh", str(tmp_path)).replace("-w 5", "-w 2")
        # The processes of a lab host on this machine show here too, with the lock of a run that is at work there.
        remote = remote.replace("labredes-run", f"test-run-{os.getpid()}")
        process = subprocess.Popen(
            ["sh", "-c", run_lock.LOCAL, "labredes-run-lock", str(pid), "sh", "-c", remote],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        line = process.stdout.readline().strip()
        return line if line == "locked" else "\n".join([line, process.stdout.read()])

    yield take
    for process in started:
        process.stdout.close()
        process.kill()
        process.wait()


@pytest.fixture(name="run")
def fixture_run():
    """A process that stands for the main process of a run."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_lock_refuses_a_second_run_and_names_the_first(take, run):
    assert take(run.pid, "ana@laptop pid 1") == "locked"
    refused = take(os.getpid(), "eva@desk pid 2")
    # Other runs of this machine, such as those of a lab's containers, may be in the list as well.
    assert re.search(rf" test-run-{os.getpid()} ana@laptop pid 1$", refused, re.MULTILINE), refused


def test_lock_ends_when_its_run_is_killed(take, run):
    assert take(run.pid, "ana@laptop pid 1") == "locked"
    run.kill()
    run.wait()
    begun = time.monotonic()
    assert take(os.getpid(), "eva@desk pid 2") == "locked"
    assert time.monotonic() - begun < 2.5


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            "Failed to connect to the host via ssh: admin@192.0.2.1: Permission denied (publickey).",
            "pbx1 (192.0.2.1): the login as admin was refused; check ansible_user",
        ),
        (
            "no such identity: /nokey: No such file or directory\nadmin@192.0.2.1: Permission denied (publickey).",
            "the private key does not exist",
        ),
        (
            "@ WARNING: UNPROTECTED PRIVATE KEY FILE! @\nbad permissions\nPermission denied (publickey).",
            "the private key cannot be used",
        ),
        (
            "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.",
            "ssh-keygen -R '[192.0.2.1]:3524'",
        ),
        (
            'MODULE FAILURE\nTraceback (most recent call last):\n  File "/tmp/AnsiballZ_setup.py", line 107'
            "\n    _ansiballz_main()\nSyntaxError: future feature annotations is not defined",
            "/usr/bin/python3 is too old for the controller's ansible-core",
        ),
        (
            "ansible-core requires a minimum of Python version 3.8. Current version: 3.7.16 (default)",
            "install ansible-core 2.16 on the controller, for which Python 3.6 is enough",
        ),
        (
            "Ansible requires Python 3.9 or newer on the target. Current version: 3.8.18",
            "is too old for the controller",
        ),
        ("Missing sudo password", "may not become root by sudo"),
        ("MODULE FAILURE\n/bin/sh: 1: sudo: not found\n", "sudo is not installed"),
        ("MODULE FAILURE\n/bin/sh: 1: /usr/bin/python3: not found\n", "Python 3 is not at /usr/bin/python3"),
        ("ssh: connect to host 192.0.2.1 port 3524: Connection timed out", "nothing answers SSH on port 3524;"),
        (
            "stdio forwarding failed\nkex_exchange_identification: Connection closed",
            "nothing answers SSH on port 3524;",
        ),
        (
            "ana@jump: Permission denied (publickey).\nkex_exchange_identification: Connection closed by remote host\n"
            "Connection closed by UNKNOWN port 65535",
            "through its jump host failed (ana@jump: Permission denied (publickey).); check `ssh 192.0.2.1` and",
        ),
        (
            "channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\n"
            "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535",
            "nothing answers SSH on port 3524;",
        ),
        ("Connection to UNKNOWN port 65535 timed out", "nothing answers SSH on port 3524;"),
        ("Connection reset by 192.0.2.1 port 3524", "closed the connection"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        (
            'Failed to connect: /home/ana/.ssh/config line 2: no argument after keyword "hostname"\n'
            "/home/ana/.ssh/config: terminating, 1 bad configuration options",
            "/home/ana/.ssh/config line 2: no argument after keyword",
        ),
        ("something never seen", "pbx1 (192.0.2.1): something never seen."),
    ],
)
def test_failed_connection_is_one_sentence_with_a_cure(output, expected):
    failure = {"port": 3524, "msg": f"timed out waiting for ping module test: {output}"}
    sentence = ssh_failure([failure], "pbx1", "192.0.2.1", "admin", "/usr/bin/python3")
    assert expected in sentence
    assert "\n" not in sentence


def test_answer_of_any_port_outweighs_silent_ports():
    silent = {"port": 3524, "msg": "ssh: connect to host pbx1 port 3524: Connection refused"}
    refused = {"port": 22, "msg": "admin@pbx1: Permission denied (publickey)."}
    assert "the login as admin was refused" in ssh_failure([silent, refused], "pbx1", user="admin")
    silent_too = {**silent, "port": 22}
    assert "pbx1: nothing answers SSH on port 3524, 22;" in ssh_failure([silent, silent_too, silent], "pbx1")


@pytest.mark.parametrize(
    ("release", "supported"),
    [("bionic", True), ("noble", True), ("trixie", True), ("buster", False), ("questing", False), ("bookworm", False)],
)
def test_unsupported_distribution_is_refused_by_name(tmp_path, release, supported):
    """Each release as one of Ubuntu, or of Debian where the name is Debian's; bookworm as a fork's."""
    debian = release in ("trixie", "buster")
    facts = {
        "distribution": "Debian" if debian else "Ubuntu",
        "distribution_version": "9",
        "distribution_release": release,
    }
    expected = [
        f"{facts['distribution']} 9 ({release}) is not supported; set the host up with "
        "Ubuntu bionic, focal, jammy, noble or Debian bullseye, bookworm, trixie."
    ]
    assert unsupported(tmp_path, **facts) == ([] if supported else expected)


def unsupported(secrets, **facts) -> list[str]:
    """Why a host with these facts is refused."""
    known = rendering.variables({**rendering.FACTS["Debian 12"], **facts}, {}, secrets, "preflight")
    return rendering.evaluate("{{ __preflight_unsupported }}", known)


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64", "riscv64", "ppc64le"])
def test_unsupported_architecture_is_refused_by_name(tmp_path, architecture):
    expected = [
        f"the architecture {architecture} is not supported; set the host up on x86_64, aarch64, armv7l or i686."
    ]
    supported = architecture in rendering.load(rendering.ROLES / "preflight/vars/main.yml")["__preflight_architectures"]
    assert unsupported(tmp_path, architecture=architecture) == ([] if supported else expected)


def test_old_python_of_a_host_is_refused_by_version(tmp_path):
    assert unsupported(tmp_path, python_version="3.6.9") == []
    (refusal,) = unsupported(tmp_path, python_version="2.7.17")
    assert refusal.startswith("Python 2.7.17 is not supported; set ansible_python_interpreter to one from 3.6 on")


def test_every_role_supports_the_same_platforms():
    lists = [
        yaml.safe_load(path.read_text())["galaxy_info"]["platforms"] for path in rendering.ROLES.glob("*/meta/main.yml")
    ]
    assert len(lists) > 5 and all(platforms == lists[0] for platforms in lists)
