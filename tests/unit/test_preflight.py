"""What reach is made of: the run lock, the search for the SSH port, and the sentences for failed logins."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from ansible_collections.labredes.pbx.plugins.action.ssh_port import find_port
from ansible_collections.labredes.pbx.plugins.plugin_utils import run_lock
from ansible_collections.labredes.pbx.plugins.plugin_utils.ssh_failure import sentence


@pytest.fixture(name="other_run")
def fixture_other_run():
    """A process that is not this one's."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_lock_is_taken_once_and_may_be_taken_again_by_its_run(tmp_path):
    assert run_lock.take(tmp_path / "locks", "pbx1", "192.0.2.1", os.getpid()) is True
    assert run_lock.take(tmp_path / "locks", "pbx1", "192.0.2.1", os.getpid()) is False
    assert (tmp_path / "locks").stat().st_mode & 0o777 == 0o700


def test_lock_of_a_living_run_is_refused_by_its_process_id(tmp_path, other_run):
    run_lock.take(tmp_path, "pbx1", "192.0.2.1", other_run.pid)
    with pytest.raises(run_lock.Busy) as caught:
        run_lock.take(tmp_path, "pbx1", "192.0.2.1", os.getpid())
    assert caught.value.holder["pid"] == other_run.pid
    assert run_lock.take(tmp_path, "pbx2", "192.0.2.1", os.getpid()) is True


def test_lock_of_a_dead_run_is_stale_even_while_it_is_a_zombie(tmp_path, other_run):
    run_lock.take(tmp_path, "pbx1", "192.0.2.1", other_run.pid)
    other_run.kill()
    for _attempt in range(100):
        if run_lock.started(other_run.pid) is None:
            break
        time.sleep(0.05)
    assert run_lock.take(tmp_path, "pbx1", "192.0.2.1", os.getpid()) is True


def test_lock_of_a_process_id_that_is_used_again_is_stale(tmp_path, other_run):
    run_lock.take(tmp_path, "pbx1", "192.0.2.1", other_run.pid)
    path = next(tmp_path.glob("*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": "before the last boot 1"}))
    assert run_lock.take(tmp_path, "pbx1", "192.0.2.1", os.getpid()) is True


def test_lock_of_another_controller_counts(tmp_path):
    run_lock.take(tmp_path, "pbx1", "192.0.2.1", os.getpid())
    path = next(tmp_path.glob("*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "controller": "elsewhere"}))
    with pytest.raises(run_lock.Busy) as caught:
        run_lock.take(tmp_path, "pbx1", "192.0.2.1", os.getpid())
    assert caught.value.holder["here"] is False


def test_torn_lock_file_is_no_lock(tmp_path):
    run_lock.take(tmp_path, "pbx1", "192.0.2.1", os.getpid())
    next(tmp_path.glob("*.json")).write_text("")
    assert run_lock.take(tmp_path, "pbx1", "192.0.2.1", os.getpid()) is True


def test_main_process_of_a_fork_is_its_parent():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(run_lock.main_process()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 32)) == run_lock.main_process()


@contextmanager
def server(greeting):
    """A TCP server on a free port of this machine that says one thing and hangs up; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _peer = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(greeting)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_port_the_first_that_greets_as_ssh_is_taken():
    with (
        server(b"220 mail ESMTP\r\n") as mail,
        server(b"hello\r\nSSH-2.0-OpenSSH_8.4\r\n") as ssh,
        server(b"SSH-2.0-OpenSSH_8.4\r\n") as later,
    ):
        assert find_port("127.0.0.1", [mail, ssh, later], 2) == ssh
        assert find_port("127.0.0.1", [mail], 1) is None


def test_port_a_dead_host_is_given_up_in_time():
    before = time.monotonic()
    assert find_port("127.0.0.1", [1], 1.5) is None
    assert time.monotonic() - before < 3


@pytest.mark.parametrize(
    ("said", "expected"),
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
        ("Missing sudo password", "may not become root by sudo"),
        ("MODULE FAILURE\n/bin/sh: 1: sudo: not found\n", "sudo is not installed"),
        ("MODULE FAILURE\n/bin/sh: 1: /usr/bin/python3: not found\n", "Python 3 is not at /usr/bin/python3"),
        ("ssh: connect to host 192.0.2.1 port 3524: Connection timed out", "nothing answers SSH on port 3524"),
        ("Connection reset by 192.0.2.1 port 3524", "ended the conversation"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("something never seen", "pbx1 (192.0.2.1): something never seen."),
    ],
)
def test_failed_logins_are_told_in_one_sentence_with_the_cure(said, expected):
    told = sentence(said, "pbx1", "192.0.2.1", 3524, "admin", "/usr/bin/python3")
    assert expected in told
    assert "\n" not in told
