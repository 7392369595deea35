"""The running containers: their limits, a changed configuration, and how they stop and start."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from conftest import NAME, ROOT, engine


def asterisk(command: str) -> str:
    """The answer of Asterisk's command line."""
    return engine("exec", NAME, "asterisk", "-rx", command, check=False).stdout


def booted(seconds: float) -> float:
    """The seconds until Asterisk takes calls."""
    begun = time.monotonic()
    while "fully booted" not in asterisk("core waitfullybooted"):
        assert time.monotonic() - begun < seconds, engine("logs", "--tail=5", NAME, check=False).stderr
        time.sleep(0.1)
    return time.monotonic() - begun


def test_info_names_the_image_in_place_of_ssh(info):
    assert "ssh" not in info and info["image"]["digest"].startswith("sha256:")
    assert info["image"]["name"].startswith("localhost/labredes-pbx") and 10**8 < info["image"]["size"] < 230 * 10**6
    assert {"host", "sip", "phones", "mailboxes", "ami", "ari", "events", "database"} <= set(info)


def test_asterisk_has_no_capability_and_a_read_only_root(info):
    status = engine("exec", NAME, "cat", "/proc/1/status").stdout
    assert re.findall(r"(?m)^Cap(?:Prm|Eff|Bnd|Amb):\s*(\S+)", status) == ["0" * 16] * 4
    assert re.search(r"(?m)^NoNewPrivs:\s*1", status) and re.search(r"(?m)^Uid:\s*5060", status)
    assert engine("exec", NAME, "touch", "/usr/probe", check=False).returncode != 0


def test_idle_memory_is_under_120_mib(info):
    used = engine("exec", NAME, "cat", "/proc/1/status").stdout
    assert int(re.search(r"VmRSS:\s*(\d+) kB", used)[1]) < 120 * 1024


def test_health_check_succeeds(info):
    assert engine("healthcheck", "run", NAME).returncode == 0


def test_stops_within_ten_seconds_and_starts_within_twenty(info):
    asterisk("database put REDIRECT 6003 6001")
    begun = time.monotonic()
    engine("stop", "--time=30", NAME)
    stopped = time.monotonic() - begun
    engine("start", NAME)
    started = booted(20)
    print(f"stopped after {stopped:.1f} s, took calls after {started:.1f} s")
    assert stopped < 10
    assert "6001" in asterisk("database get REDIRECT 6003")
    asterisk("database del REDIRECT 6003")


@contextmanager
def call(info: dict) -> Iterator[None]:
    """A call that goes on, by ARI: two parties of a conference."""
    request = urllib.request.Request(
        info["ari"]["url"] + "/channels?endpoint=Local/6000@from-internal&context=from-internal&extension=6000",
        method="POST",
    )
    login = base64.b64encode(f"{info['ari']['user']}:{info['ari']['password']}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        channel = json.load(answer)["id"]
    yield
    request = urllib.request.Request(info["ari"]["url"] + f"/channels/{channel}", method="DELETE")
    request.add_header("Authorization", f"Basic {login}")
    urllib.request.urlopen(request, timeout=10).close()


def records() -> int:
    """The number of call records."""
    command = ["psql", "--quiet", "--no-align", "--tuples-only", "asterisk", "--command=SELECT count(*) FROM cdr"]
    return int(engine("exec", f"{NAME}-database", *command).stdout)


def test_finished_call_has_its_record_after_a_stop(info):
    before = records()
    with call(info):
        time.sleep(2)
        assert "0 active calls" not in asterisk("core show channels count")
    engine("stop", "--time=30", NAME)
    engine("start", NAME)
    booted(20)
    assert records() > before


def test_call_tests_of_the_lab_host_pass(info, tmp_path):
    """Unchanged, with the address of the containers."""
    described = tmp_path / "info.json"
    described.write_text(json.dumps(info))
    names = ("calls", "call_centre", "callers", "conference", "queue", "voicemail", "forwarding")
    done = subprocess.run(
        ["pytest", "-q", "-p", "no:cacheprovider", *(str(ROOT / f"tests/site/test_{name}.py") for name in names)],
        env={**os.environ, "LAB_INFO": str(described)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
