"""The lab host under test, and ways to it: fixtures for every test of the finished site."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg2
import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[2]
VOICEMAIL = "/var/spool/asterisk/voicemail"
sys.path.insert(0, str(ROOT / "collections"))  # the checkout as the collection labredes.pbx

import sipp  # noqa: E402  it needs the collection
from prompts import Prompts  # noqa: E402
from stranger import Stranger  # noqa: E402


def pytest_addoption(parser):
    """What `make test` adds."""
    parser.addoption(
        "--molecule", action="store_true", help="have Molecule make the host first, and remove it afterwards"
    )


def pytest_configure(config):
    """The project's own marks."""
    config.addinivalue_line("markers", "reboots: boots the lab host anew, which ends every connection; comes last")


def pytest_collection_modifyitems(items):
    """A test that boots the host anew comes after all that hold connections to it."""
    items.sort(key=lambda item: item.get_closest_marker("reboots") is not None)


@pytest.fixture(scope="session")
def room(request) -> Path:
    """The directory of the lab host under test: Molecule's with --molecule, else LAB_DIR or `make lab`'s."""
    if not request.config.getoption("--molecule", False):
        yield Path(os.environ.get("LAB_DIR", ROOT / ".lab"))
        return
    if request.session.testsfailed:
        pytest.fail("No host is made while other tests fail.", pytrace=False)
    _molecule(request, "destroy")  # of a run that failed; --destroy=never leaves out the first one too
    if _molecule(request, "test", "--destroy=never"):
        pytest.fail("Molecule could not make the host; what it said last tells why.", pytrace=False)
    yield ROOT / ".lab" / "molecule"
    _molecule(request, "destroy")


def _molecule(request, *command: str) -> int:
    """Run Molecule's scenario of the whole site, live, without its own tests; gives its exit code."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(flush=True)
        tools = Path(sys.executable).parent
        return subprocess.run(
            [tools / "molecule", *command, "--no-command-borders", "--scenario-name=site"],
            cwd=ROOT,
            check=False,
            env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "VERIFY": "false"},
        ).returncode


@pytest.fixture(scope="session")
def lab(request) -> dict:
    """The lab host, as `make lab-info` tells it; LAB_INFO names a file with the same JSON instead."""
    path = os.environ.get("LAB_INFO")
    if path:
        return json.loads(Path(path).read_text())
    asked = subprocess.run(
        [sys.executable, str(ROOT / "lab" / "lab.py"), "info", "--dir", request.getfixturevalue("room")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if asked.returncode:
        pytest.exit(f"No lab host to test ({asked.stderr.strip()}); run `make lab` or set LAB_INFO.", returncode=2)
    return json.loads(asked.stdout)


@pytest.fixture(scope="session")
def host(lab):
    """The lab host for testinfra, asked as root over the SSH that everybody uses."""
    ssh = lab["ssh"]
    return testinfra.get_host(
        f"ssh://{ssh['user']}@{lab['host']}:{ssh['port']}",
        ssh_identity_file=ssh["key_file"],
        sudo=ssh["user"] != "root",
        ssh_extra_args="-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes",
    )


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
    """An autocommitting connection to the lab's database, as it sees it: from the lab host itself, by its password."""
    given = lab["database"]
    with socket.create_server(("127.0.0.1", 0)) as relay:
        threading.Thread(target=_relay, args=(relay, lab, given["host"], given["port"]), daemon=True).start()
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=relay.getsockname()[1],
            dbname=given["name"],
            user=given["user"],
            password=given["password"],
            connect_timeout=20,
        )
        connection.autocommit = True
        yield connection
        connection.close()


def _relay(relay: socket.socket, lab: dict, host: str, port: int) -> None:
    """Carry each connection through a command over SSH, whose server forwards no ports."""
    there = f"exec 3<>/dev/tcp/{host}/{port}; cat <&3 & cat >&3; kill $!"
    while True:
        try:
            connection, _peer = relay.accept()
        except OSError:
            return
        with connection:
            subprocess.Popen(
                [*_ssh(lab), f"bash -c {shlex.quote(there)}"],
                stdin=connection,
                stdout=connection,
                stderr=subprocess.DEVNULL,
            )


@pytest.fixture(scope="session")
def stranger(room, lab) -> Stranger:
    """A second machine beside the lab host, which knows nothing of it and is nobody's administrator."""
    with Stranger(room) as machine:
        yield machine


def _ssh(lab: dict, *options: str) -> list[str]:
    """An ssh command line to the lab host; a throwaway host's key is not remembered."""
    ssh = lab["ssh"]
    settings = ["BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    given = [word for setting in settings for word in ("-o", setting)]
    return [
        "ssh",
        "-q",
        "-i",
        ssh["key_file"],
        "-p",
        str(ssh["port"]),
        *given,
        *options,
        f"{ssh['user']}@{lab['host']}",
    ]


@pytest.fixture(scope="session")
def prompts(lab) -> Prompts:
    """The exchange's Spanish prompts, as its own files have them."""
    archive = subprocess.run(
        [*_ssh(lab), "tar -cz -C /var/lib/asterisk/sounds/es ."], capture_output=True, timeout=60, check=True
    )
    return Prompts.of(archive.stdout)


class Telephones:
    """What a test dials and answers with; everything is hung up and unregistered when it is over."""

    def __init__(self, lab: dict, prompts: Prompts, stack: ExitStack):
        self.lab, self.prompts, self.stack = lab, prompts, stack

    def account(self, number: str, password: str | None = None) -> sipp.Account:
        """The account of a phone; password replaces the right one."""
        known = self.lab["phones"].get(number, {}).get("password")
        return sipp.Account(number, password or known, self.lab["host"], self.lab["sip"]["udp"])

    def dial(self, caller: str, number: str, answered: bool = True, **more) -> sipp.Line:
        """Call a number from a phone that need not be registered; answered: wait until it is."""
        line = sipp.Line(self.stack, self.account(caller), number, self.prompts, **more)
        assert not answered or line.answered(), line
        return line

    def answering(self, number: str, seconds: float = 0.2) -> sipp.Phone:
        """A registered phone that answers each call after ringing so long."""
        return sipp.Phone(self.stack, self.account(number), "answer", seconds=seconds)

    def ringing(self, number: str) -> sipp.Phone:
        """A registered phone that nobody answers."""
        return sipp.Phone(self.stack, self.account(number), "ring")

    def refusing(self, number: str, how: str = "busy") -> sipp.Phone:
        """A registered phone that refuses each call: busy (486) or decline (603)."""
        return sipp.Phone(self.stack, self.account(number), how)


@pytest.fixture
def telephones(lab, prompts, on_lab) -> Telephones:
    """Telephones by SIPp for one test; the next one begins when the exchange has done with all calls of this one."""
    with ExitStack() as stack:
        yield Telephones(lab, prompts, stack)
    sipp.within(8, lambda: on_lab("asterisk -rx 'core show channels count'").startswith("0 active channels"))


@pytest.fixture
def records(database):
    """A function that waits for the call records written since the test began, and gives them as dictionaries.

    count: how many are expected; a moment more is waited for one too many.
    """

    def ask(begun: int = 0) -> list[dict]:
        with database.cursor() as cursor:
            cursor.execute("SELECT * FROM cdr WHERE id > %s ORDER BY id", (begun,))
            return [dict(zip([column.name for column in cursor.description], row)) for row in cursor.fetchall()]

    begun = max((row["id"] for row in ask()), default=0)

    def new(count: int = 1, seconds: float = 8) -> list[dict]:
        sipp.within(seconds, lambda: len(ask(begun)) >= count)
        time.sleep(0.7)
        return ask(begun)

    return new


@pytest.fixture
def inbox(on_lab):
    """A function that lists the new messages of a mailbox; all mailboxes are emptied before and after the test."""
    empty = f"find {VOICEMAIL} -name 'msg*' -delete"
    on_lab(empty)

    def messages(number: str) -> list[str]:
        return on_lab(f"cd {VOICEMAIL} && ls */{number}/INBOX/msg????.wav 2>/dev/null || true").split()

    yield messages
    on_lab(empty)
