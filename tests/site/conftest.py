"""Fixtures of the tests of a finished site: the lab host, its database, telephones, prompts, call records."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
import testinfra
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
VOICEMAIL = "/var/spool/asterisk/voicemail"
sys.path.insert(0, str(ROOT / "collections"))  # the checkout as the collection labredes.pbx

import sipp  # noqa: E402  it needs the collection
from browser_phone import chromium  # noqa: E402
from outside_host import OutsideHost  # noqa: E402
from playbook import Exchange  # noqa: E402
from prompts import Prompts  # noqa: E402
from softphone import Softphone  # noqa: E402


def pytest_addoption(parser):
    """The option that `make test` sets."""
    parser.addoption(
        "--molecule", action="store_true", help="let Molecule create the host before, and destroy it after the tests"
    )


def pytest_configure(config):
    """Register the project's own marks."""
    config.addinivalue_line("markers", "reboots: reboots the lab host, which ends every connection; runs last")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run tests that reboot the host after those that hold connections to it, in a random order too."""
    items.sort(key=lambda item: item.get_closest_marker("reboots") is not None)


@pytest.fixture(scope="session")
def lab_directory(request) -> Path:
    """The directory of the lab host under test: Molecule's with --molecule, else LAB_DIR or that of `make lab`."""
    if not request.config.getoption("--molecule", False):
        yield Path(os.environ.get("LAB_DIR", ROOT / ".lab"))
        return
    _molecule(request, "destroy")  # the host of a failed run, which --destroy=never would leave in place
    if _molecule(request, "test", "--destroy=never"):
        pytest.fail("Molecule could not set up the host; see the end of its output.", pytrace=False)
    yield ROOT / ".lab" / "molecule" / "default"
    _molecule(request, "destroy")


def _molecule(request, *command: str) -> int:
    """Run Molecule's default scenario, the whole site, with live output and no tests; returns the exit code."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(flush=True)
        tools = Path(sys.executable).parent
        return subprocess.run(
            [tools / "molecule", *command, "--no-command-borders", "--scenario-name=default"],
            cwd=ROOT,
            check=False,
            env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "VERIFY": "false"},
        ).returncode


@pytest.fixture(scope="session")
def lab(request) -> dict:
    """The output of `make lab-info`; LAB_INFO names a file with the same JSON instead."""
    path = os.environ.get("LAB_INFO")
    if path:
        return json.loads(Path(path).read_text())
    shown = subprocess.run(
        [sys.executable, str(ROOT / "lab" / "lab.py"), "info", "--dir", request.getfixturevalue("lab_directory")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if shown.returncode:
        pytest.exit(f"No lab host to test ({shown.stderr.strip()}); run `make lab` or set LAB_INFO.", returncode=2)
    return json.loads(shown.stdout)


@pytest.fixture(scope="session")
def exchange(lab_directory) -> Exchange:
    """The exchange under test; it has the data of its inventory again after all tests."""
    exchange = Exchange(lab_directory)
    yield exchange
    exchange.ensure()


@pytest.fixture(autouse=True)
def data_of_the_inventory(request, exchange) -> None:
    """Every test finds the exchange with the data of its inventory, unless it asks for that of test_changes.py."""
    if "changed" not in request.fixturenames:
        exchange.ensure()


@pytest.fixture(scope="session")
def host(lab):
    """The lab host for testinfra, as root over SSH."""
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
        if "image" in lab and line == "systemctl restart asterisk":
            return _restart_container(lab, seconds)
        command = _as_root(lab, line)
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, f"`{line}` on the lab host: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """Chromium, one for all tests of a module."""
    with sync_playwright() as playwright:
        browser = chromium(playwright, tmp_path_factory.mktemp("chromium"))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def database(lab):
    """An autocommitting connection to the lab's database, with its password, from the lab host itself.

    Another one for each module, since some tests restart PostgreSQL.
    """
    settings = lab["database"]
    with socket.create_server(("127.0.0.1", 0)) as relay:
        threading.Thread(target=_relay, args=(relay, lab, settings["host"], settings["port"]), daemon=True).start()
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=relay.getsockname()[1],
            dbname=settings["name"],
            user=settings["user"],
            password=settings["password"],
            connect_timeout=20,
        )
        connection.autocommit = True
        yield connection
        connection.close()


def _relay(relay: socket.socket, lab: dict, host: str, port: int) -> None:
    """Carry each connection through a command over SSH, since the server forwards no ports."""
    remote = f"exec 3<>/dev/tcp/{host}/{port}; cat <&3 & cat >&3; kill $!"
    while True:
        try:
            connection, _peer = relay.accept()
        except OSError:
            return
        with connection:
            subprocess.Popen(
                _as_root(lab, f"bash -c {shlex.quote(remote)}"),
                stdin=connection,
                stdout=connection,
                stderr=subprocess.DEVNULL,
            )


@pytest.fixture(scope="module")
def outside_host(lab_directory, lab) -> OutsideHost:
    """A second machine on the lab's network, in no administrator's network."""
    with OutsideHost(lab_directory) as machine:
        yield machine


def _as_root(lab: dict, line: str) -> list[str]:
    """The command that runs a shell line as root on the lab host, or in the container that runs an image."""
    if "image" in lab:
        engine = [os.environ.get("ENGINE") or "podman", "exec", "--interactive", "--privileged", "--user=0"]
        return [*engine, lab["image"]["container"], "sh", "-c", line]
    sudo = "" if lab["ssh"]["user"] == "root" else "sudo -n -- "
    return [*_ssh(lab), f"{sudo}sh -c {shlex.quote(line)}"]


def _restart_container(lab: dict, seconds: float) -> str:
    """Restart the container of Asterisk, which has no systemd, and wait until it takes calls."""
    engine, name = os.environ.get("ENGINE") or "podman", lab["image"]["container"]
    subprocess.run([engine, "restart", name], capture_output=True, timeout=seconds, check=True)
    booted = [engine, "exec", name, "asterisk", "-rx", "core waitfullybooted"]
    assert sipp.within(seconds, lambda: subprocess.run(booted, capture_output=True, check=False).returncode == 0)
    return ""


def _ssh(lab: dict, *options: str) -> list[str]:
    """An ssh command line to the lab host; the host key of a throwaway host is not kept."""
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
    """The exchange's Spanish prompts, read from its files."""
    archive = subprocess.run(
        _as_root(lab, "tar -cz -C /var/lib/asterisk/sounds/es ."), capture_output=True, timeout=60, check=True
    )
    return Prompts.of(archive.stdout)


class Telephones:
    """Callers and registered phones of a test; all calls and registrations end with it."""

    def __init__(self, lab: dict, prompts: Prompts, stack: ExitStack):
        self.lab, self.prompts, self.stack = lab, prompts, stack

    def account(self, number: str, password: str | None = None) -> sipp.Account:
        """The account of a phone; `password` replaces the right one."""
        known = self.lab["phones"].get(number, {}).get("password")
        return sipp.Account(number, password or known, self.lab["host"], self.lab["sip"]["udp"])

    def dial(self, caller: str, number: str, answered: bool = True, **more) -> sipp.Line:
        """Call a number from a phone, registered or not; `answered`: wait until the call is answered."""
        line = sipp.Line(self.stack, self.account(caller), number, self.prompts, **more)
        assert not answered or line.answered(), line
        return line

    def answering(self, number: str, seconds: float = 0.2) -> sipp.Phone:
        """A registered phone that answers each call after ringing for `seconds`."""
        return sipp.Phone(self.stack, self.account(number), "answer", seconds=seconds)

    def ringing(self, number: str) -> sipp.Phone:
        """A registered phone that rings and does not answer."""
        return sipp.Phone(self.stack, self.account(number), "ring")

    def softphone(self, number: str, transport: str = "udp", **options) -> Softphone:
        """A softphone by baresip, which answers each call; options: of Softphone."""
        account = replace(self.account(number), port=self.lab["sip"][transport])
        return Softphone(self.stack, account, transport, **options)

    def refusing(self, number: str, how: str = "busy") -> sipp.Phone:
        """A registered phone that rejects each call: busy (486) or decline (603)."""
        return sipp.Phone(self.stack, self.account(number), how)


@pytest.fixture
def telephones(lab, prompts, on_lab) -> Telephones:
    """SIPp telephones for one test, which ends when the exchange has no more active calls."""
    with ExitStack() as stack:
        yield Telephones(lab, prompts, stack)
    sipp.within(8, lambda: on_lab("asterisk -rx 'core show channels count'").startswith("0 active channels"))


@pytest.fixture
def records(database):
    """A function that waits for the call records written since the start of the test; returns them as dictionaries.

    count: the expected number; it waits a moment longer to notice a record too many.
    """

    def read(begun: int = 0) -> list[dict]:
        with database.cursor() as cursor:
            cursor.execute("SELECT * FROM cdr WHERE id > %s ORDER BY id", (begun,))
            return [
                dict(zip([column.name for column in cursor.description], row, strict=True)) for row in cursor.fetchall()
            ]

    begun = max((row["id"] for row in read()), default=0)

    def new(count: int = 1, seconds: float = 8) -> list[dict]:
        sipp.within(seconds, lambda: len(read(begun)) >= count)
        time.sleep(0.7)
        return read(begun)

    return new


@pytest.fixture
def inbox(on_lab):
    """A function that lists the new messages of a mailbox; mailboxes are empty before and after the test."""
    empty = f"find {VOICEMAIL} -name 'msg*' -delete"
    on_lab(empty)

    def messages(number: str) -> list[str]:
        return on_lab(f"cd {VOICEMAIL} && ls */{number}/INBOX/msg????.wav 2>/dev/null || true").split()

    yield messages
    on_lab(empty)
