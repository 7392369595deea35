"""The lab host under test, and ways to it: fixtures for every test of the finished site."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import psycopg2
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))  # the checkout as the collection labredes.pbx


@pytest.fixture(scope="session")
def lab() -> dict:
    """The lab host, as `make lab-info` tells it; LAB_INFO names a file with the same JSON instead."""
    path = os.environ.get("LAB_INFO")
    if path:
        return json.loads(Path(path).read_text())
    asked = subprocess.run([sys.executable, str(ROOT / "lab" / "lab.py"), "info"],
                           capture_output=True, text=True, timeout=60, check=False)
    if asked.returncode:
        pytest.exit(f"No lab host to test ({asked.stderr.strip()}); run `make lab` or set LAB_INFO.", returncode=2)
    return json.loads(asked.stdout)


@pytest.fixture(scope="session")
def on_lab(lab):
    """A function that runs a command (a shell line) as root on the lab host and returns its output."""

    def run(line: str, seconds: float = 30) -> str:
        sudo = "" if lab["ssh"]["user"] == "root" else "sudo -n -- "
        command = [*_ssh(lab), f"{sudo}sh -c {shlex.quote(line)}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, f"`{line}` on the lab host: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def database(lab):
    """An autocommitting connection to the lab's database, through SSH as its port need not be open to us."""
    given = lab["database"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    forward = f"127.0.0.1:{port}:{given['host']}:{given['port']}"
    command = _ssh(lab, "-N", "-L", forward, "-o", "ExitOnForwardFailure=yes")
    tunnel = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        connection = _connect(tunnel, given, port)
        connection.autocommit = True
        yield connection
        connection.close()
    finally:
        tunnel.terminate()
        tunnel.wait(10)


def _connect(tunnel: subprocess.Popen, given: dict, port: int):
    """Connect through the tunnel, which takes a moment to open."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return psycopg2.connect(host="127.0.0.1", port=port, dbname=given["name"], user=given["user"],
                                    password=given["password"], connect_timeout=3)
        except psycopg2.OperationalError:
            if tunnel.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _ssh(lab: dict, *options: str) -> list[str]:
    """An ssh command line to the lab host; a throwaway host's key is not remembered."""
    ssh = lab["ssh"]
    settings = ["BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    given = [word for setting in settings for word in ("-o", setting)]
    return ["ssh", "-q", "-i", ssh["key_file"], "-p", str(ssh["port"]), *given, *options, f"{ssh['user']}@{lab['host']}"]
