"""Module asterisk_stop, and the names of those who talk, against programs in the place of systemctl, asterisk, nft."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from ansible.module_utils import basic
from ansible_collections.labredes.pbx.plugins.module_utils import asterisk_cli
from ansible_collections.labredes.pbx.plugins.modules import asterisk_stop

SYSTEMCTL = """#!/bin/sh
case "$1" in
show) cat {0}/state ;;
stop) [ ! -e {0}/stuck ] || exec sleep 1; echo stop >> {0}/commands; echo ActiveState=inactive > {0}/state ;;
kill) rm {0}/stuck; echo kill >> {0}/commands ;;
esac
"""
# Draining ends when the file of the calls is empty; the first look at them may be followed by one more call.
ASTERISK = """#!/bin/sh
[ ! -e {0}/hung ] || {{ echo Unable to connect; exit 1; }}
case "$2" in
"core show channels concise")
    [ ! -e {0}/draining ] || {{ echo "Command '$2' cannot be run during shutdown"; exit 0; }}
    cat {0}/calls; [ ! -e {0}/next ] || mv {0}/next {0}/calls ;;
"core stop gracefully")
    echo drain >> {0}/commands; touch {0}/draining
    while [ -s {0}/calls ]; do [ -e {0}/draining ] || exit 0; sleep 0.05; done
    echo ActiveState=inactive > {0}/state ;;
"core abort shutdown") [ ! -e {0}/draining ] || {{ rm {0}/draining; echo abort >> {0}/commands; }} ;;
esac
"""
NFT = """#!/bin/sh
echo "nft $*" | sed 's/ -f -/ hold/; s/ delete.*/ release/' >> {0}/commands
[ "$1" != -f ] || cat > {0}/rules
"""
LEG = "PJSIP/{0}-0000000{1}!from-internal!{2}!1!Up!Dial!PJSIP/6002/sip:a!b,30!{0}!!!3!{3}!{4}!pbx1-1.{1}\n"
TALK = LEG.format("6001", 1, "6002", 75, "bridge") + LEG.format("6002", 2, "", 70, "bridge")
MAILBOX = LEG.format("6003", 3, "6500", 12, "")


class Engine:
    """A directory with the programs and their answers."""

    def __init__(self, path: Path):
        self.path = path
        (path / "bin").mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("asterisk", ASTERISK), ("nft", NFT)):
            (path / "bin" / name).write_text(text.format(path))
            (path / "bin" / name).chmod(0o755)
        self.write("state", "ActiveState=active\n")
        self.write("calls", "")

    def write(self, name: str, text: str) -> None:
        """Set an answer."""
        (self.path / name).write_text(text)

    def commands(self) -> list[str]:
        """What was done so far."""
        path = self.path / "commands"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def engine(tmp_path, monkeypatch) -> Engine:
    """An Asterisk that runs without calls."""
    monkeypatch.setattr(asterisk_cli, "ASTERISK", str(tmp_path / "bin/asterisk"))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return Engine(tmp_path)


@pytest.fixture
def run(engine, run_module):
    """A function that runs the module and gives its answer."""

    def now(check: bool = False, **options: object) -> dict:
        return run_module(asterisk_stop, check, **{"hold": 60, "ports": [5061, 5060, 5060], **options})

    return now


def test_idle_asterisk_is_stopped_while_calls_are_held(engine, run):
    done = run()
    assert (done["changed"], done["held"], done["ended"]) == (True, True, [])
    assert engine.commands() == ["nft hold", "stop"]
    assert "elements = { 5060 timeout 60s, 5061 timeout 60s }" in (engine.path / "rules").read_text()


def test_stopped_asterisk_is_left_alone(engine, run):
    engine.write("state", "ActiveState=inactive\n")
    assert run()["changed"] is False and engine.commands() == []


def test_check_mode_stops_nothing(engine, run):
    assert run(check=True)["changed"] is True and engine.commands() == []


def test_call_is_named_and_goes_on(engine, run):
    engine.write("calls", TALK + MAILBOX)
    failed = run()
    assert failed["msg"].startswith(
        "2 calls are in progress (6001 with 6002 for 75 s, 6003 for 12 s), so Asterisk is not"
    )
    assert engine.commands() == []


def test_call_that_comes_between_is_seen(engine, run):
    engine.write("next", TALK)
    assert "6001 with 6002" in run()["msg"]
    assert engine.commands() == ["nft hold", "nft release"]


def test_asterisk_stops_when_the_call_has_ended(engine, run):
    engine.write("calls", TALK)
    hanging_up = subprocess.Popen(["sh", "-c", f"sleep 0.7; : > {engine.path}/calls"])
    done = run(seconds=10)
    hanging_up.wait()
    assert 0.5 < done["waited"] < 5 and done["held"] and not done["ended"]
    assert engine.commands() == ["drain", "nft hold", "stop"]


def test_call_that_is_too_long_ends_the_drain(engine, run):
    engine.write("calls", TALK)
    begun = time.monotonic()
    assert "1 call is in progress (6001 with 6002 for 75 s)" in run(seconds=1)["msg"]
    assert 1 <= time.monotonic() - begun < 4
    assert engine.commands() == ["drain", "abort"]


def test_drain_of_a_killed_run_is_ended_first(engine, run):
    """Its calls are seen then."""
    engine.write("calls", TALK)
    (engine.path / "draining").touch()
    with pytest.raises(asterisk_cli.AsteriskError, match="takes no new ones"):
        asterisk_cli.calls()
    assert "6001 with 6002" in run()["msg"] and engine.commands() == ["abort"]


def test_calls_are_ended_where_that_is_allowed(engine, run):
    engine.write("calls", TALK)
    assert run(end_calls=True)["ended"] == ["6001 with 6002 for 75 s"]
    assert engine.commands() == ["nft hold", "stop"]


def test_hung_asterisk_is_stopped_only_if_calls_may_end(engine, run):
    (engine.path / "hung").touch()
    failed = run()["msg"]
    assert "does not run or refuses its control socket" in failed and "labredes_end_calls=true." in failed
    assert engine.commands() == []
    assert run(end_calls=True)["changed"] and engine.commands()[-1] == "stop"


def test_asterisk_that_does_not_come_up_is_stopped(engine, run):
    engine.write("state", "ActiveState=activating\n")
    (engine.path / "hung").touch()
    assert run()["changed"] and engine.commands() == ["nft hold", "stop"]


def test_asterisk_that_does_not_stop_is_killed(engine, run, monkeypatch):
    (engine.path / "stuck").touch()
    (engine.path / "bin/timeout").write_text(f'#!/bin/sh\nshift; "$@"; [ ! -e {engine.path}/stuck ]\n')
    (engine.path / "bin/timeout").chmod(0o755)
    assert run()["changed"] and engine.commands() == ["nft hold", "kill", "stop"]


def test_without_nftables_nothing_is_held(engine, run, monkeypatch):
    (engine.path / "bin/nft").unlink()
    monkeypatch.setattr(basic.AnsibleModule, "get_bin_path", lambda *_words, **_more: None)
    assert run()["held"] is False and engine.commands() == ["stop"]


def test_nftables_takes_the_rules():
    rules = asterisk_stop.RULES.format(table=asterisk_stop.TABLE, elements="5060 timeout 60s, 5061 timeout 60s")
    assert shutil.which("nft", path="/usr/sbin:/sbin:" + os.environ["PATH"])
    command = ["unshare", "--net", "nft", "-f", "-"]
    done = subprocess.run(command, input=rules, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_local_channels_are_no_people(engine):
    engine.write("calls", TALK.replace("PJSIP/6002-00000002", "Local/6002@phones-00000002;1"))
    assert asterisk_cli.calls() == ["6001 for 75 s"]


def test_sentence_names_ten_calls_at_most():
    assert asterisk_cli.in_progress([f"600{n}" for n in range(9)] + ["a", "b", "c"]).endswith("a and 2 more)")
