"""A lab host of its own, builds of Asterisk that differ in one thing, and two telephones. `make test-upgrade`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "tests/site"), str(ROOT / "tests/tools"), str(ROOT / "collections")]

import builds  # noqa: E402
import playbook  # noqa: E402
from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection  # noqa: E402
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone, wait  # noqa: E402
from lab_host import LabHost  # noqa: E402
from sipp import within  # noqa: E402

import lab as lab_command  # noqa: E402

NAME = "pbx-upgrade"


class Exchange:
    """The lab host, and runs of playbooks on it."""

    def __init__(self, directory: Path):
        self.directory, self.host = directory, LabHost(directory)
        self.run: Callable[..., str] = self.host.run
        self.info = lab_command.describe(directory)["info"]
        self.builds: dict[str, tuple[Path, str]] = {}

    def _words(self, build: str, more: dict[str, object]) -> list[str]:
        package, version = self.builds[build]
        return ["-e", json.dumps({"asterisk_deb": str(package), "asterisk_deb_version": version, **more})]

    def play(self, name: str, *words: str, build: str = "first", killed_at: str = "", **more: object):
        """Run a playbook with a build; the caller checks the exit code."""
        return playbook.play(
            self.directory, *words, *self._words(build, more), playbook=f"playbooks/{name}.yml", killed_at=killed_at
        )

    def start(self, name: str, *words: str, build: str = "first", **more: object) -> subprocess.Popen[str]:
        """Start a playbook; the caller drives telephones meanwhile."""
        words = [*words, *self._words(build, more)]
        prepared = playbook.prepared(self.directory, *words, playbook=f"playbooks/{name}.yml")
        with open(self.directory / "run.log", "w") as output:  # a pipe would be full
            return subprocess.Popen(**prepared, stdout=output, stderr=output)

    def output(self) -> str:
        """The output of the run that was started last."""
        return " ".join((self.directory / "run.log").read_text().split())

    def version(self) -> str:
        """State and version of the package."""
        return self.run("dpkg-query -Wf '${db:Status-Status} ${Version}' labredes-asterisk")

    def process(self) -> str:
        """The process of Asterisk."""
        return self.run("systemctl show asterisk --property=MainPID --value").strip()

    def ready(self) -> bool:
        """Whether Asterisk takes calls."""
        return "fully booted" in self.run("asterisk -rx 'core waitfullybooted' 2>&1 || true")

    def state(self) -> str:
        """What a way back must bring: version, configuration, Asterisk's database without registrations."""
        return self.version() + self.run(
            "cd /etc && find asterisk odbc.ini systemd/system/asterisk.service -type f | sort | xargs sha256sum;"
            " asterisk -rx 'database show' | grep -v -e registrar/contact -e results"
        )


@pytest.fixture(scope="session")
def exchange() -> Iterator[Exchange]:
    """The lab host with the first build; LAB_DIR names one that is there already."""
    directory = Path(os.environ.get("LAB_DIR", ROOT / ".lab/upgrade")).resolve()
    words = ["--dir", str(directory), "--name", NAME]
    if "LAB_DIR" not in os.environ:
        options = lab_command.parse(["create", *words])
        lab_command.create(options)
        done = playbook.play(directory, seconds=1800)
        assert done.returncode == 0, done.stdout[-3000:]
    exchange = Exchange(directory)
    place = directory / "builds"
    place.mkdir(exist_ok=True)
    noted = place / "version"  # a former process may have left another build
    if not noted.exists():
        noted.write_text(exchange.version().split()[1])
    version = noted.read_text()
    exchange.builds["first"] = (builds.kept(version), version)
    for name in builds.CHANGES:
        exchange.builds[name] = builds.other(name, version, place)
    yield exchange
    if "LAB_DIR" not in os.environ:
        lab_command.remove(lab_command.parse(["down", *words]))
        shutil.rmtree(place)


@pytest.fixture(autouse=True)
def first_build(exchange):
    """Each test begins with the first build, a forward, and no upgrade."""
    if exchange.version() != f"installed {exchange.builds['first'][1]}" or not exchange.ready():
        done = exchange.play("site", "--tags=asterisk,pbx", labredes_end_calls=True)
        assert done.returncode == 0, done.stdout[-3000:]
    exchange.run("rm -rf /var/lib/labredes/upgrade; asterisk -rx 'database put 6003 REDIRECT 6002'")


@pytest.fixture
def phones(exchange) -> Iterator[list[Phone]]:
    """6001, and 6002, which is registered."""
    with ExitStack() as stack:
        found = []
        for number in ("6001", "6002"):
            line = Connection("udp", (exchange.info["host"], exchange.info["sip"]["udp"]), 5)
            stack.callback(line.close)
            found.append(Phone(number, (number, exchange.info["phones"][number]["password"]), line))
        asked = found[1].register(600)
        assert wait(found, lambda: asked.final and asked.final.status == 200, 10)
        yield found
    exchange.run("asterisk -rx 'channel request hangup all' || true")  # of a test that has failed
    within(10, lambda: exchange.run("asterisk -rx 'core show channels count' || true").startswith("0 active channels"))


def connect(phones: list[Phone], seconds: float = 10):
    """A call from the first to the second."""
    caller, callee = phones
    asked = caller.dial("6002")
    assert wait(phones, lambda: callee.incoming or asked.final, seconds), "the call did not arrive"
    assert asked.final is None, asked.final
    callee.answer()
    assert wait(phones, lambda: callee.call.confirmed and asked.final, 10), "the call was not answered"
    return asked


def drive(phones: list[Phone], done: Callable[[], object], seconds: float = 120) -> None:
    """Let the telephones answer until something is so."""
    begun = time.monotonic()
    while not done():
        assert time.monotonic() - begun < seconds, "it takes too long"
        wait(phones, lambda: False, 0.2)
