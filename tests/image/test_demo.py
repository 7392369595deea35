"""The demo exchange, which starts without any volume; a new container takes its first call within 20 seconds."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator

import pytest
from conftest import ENGINE, NAME, ROOT, engine

sys.path.insert(0, str(ROOT / "collections"))  # the checkout as the collection labredes.pbx

from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection  # noqa: E402
from ansible_collections.labredes.pbx.plugins.module_utils.sip_message import SipError  # noqa: E402
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone, wait  # noqa: E402

DEMO = f"{NAME}-demo"
IMAGE = "localhost/labredes-pbx:latest"
DIRECTORIES = {"spool": "/var/spool/asterisk", "log": "/var/log/asterisk", "run": "/run/asterisk"}
VOLUMES = [f"--volume={DEMO}-{name}:{path}" for name, path in DIRECTORIES.items()]
CONFINED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]


def start(*options: str) -> float:
    """Start the demo exchange on its volumes; returns when."""
    engine("rm", "--force", DEMO, check=False)
    begun = time.monotonic()
    run = ["--env=LABREDES_DEMO=yes", *VOLUMES, *CONFINED, *options]
    engine("run", "--detach", f"--name={DEMO}", *run, IMAGE)
    return begun


def remove() -> None:
    engine("rm", "--force", DEMO, check=False)
    for name in DIRECTORIES:
        engine("volume", "rm", "--force", f"{DEMO}-{name}", check=False)


@pytest.fixture(scope="module")
def demo() -> Iterator[float]:
    """A demo exchange with empty volumes; when it was started."""
    remove()
    yield start()
    remove()


def passwords() -> dict[str, str]:
    """The passwords of its phones."""
    shown = engine("exec", DEMO, "cat", "/var/spool/asterisk/demo/passwords", check=False).stdout
    return dict(line.split() for line in shown.splitlines())


def first_call() -> None:
    """Call from 6001 to 6002 until one is answered, with a registration before it."""
    address = engine("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", DEMO)
    server = (address.stdout.strip(), 5060)
    while True:
        known = passwords()
        if "phone_6001" in known and "phone_6002" in known:
            break
        time.sleep(0.1)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            phones = [
                Phone(number, (number, known[f"phone_{number}"]), Connection("udp", server))
                for number in ("6001", "6002")
            ]
            caller, callee = phones
            registered = callee.register()
            if not wait(phones, lambda answer=registered: answer.final, 1) or registered.final.status != 200:
                continue
        except SipError:  # it does not listen yet
            time.sleep(0.2)
            continue
        asked = caller.dial("6002")
        assert wait(phones, lambda callee=callee: callee.incoming, 5), asked.final
        callee.answer()
        assert wait(phones, lambda asked=asked: asked.final, 5) and asked.final.status == 200
        ended = caller.hang_up()
        assert wait(phones, lambda ended=ended: ended.final, 5)
        return
    raise AssertionError(engine("logs", DEMO).stderr)


def test_first_call_is_answered_within_20_s(demo):
    first_call()
    seconds = time.monotonic() - demo
    print(f"the first call was answered {seconds:.1f} s after the start of the container")
    assert seconds < 20


def test_demo_says_where_its_passwords_are(demo):
    said = engine("logs", DEMO)
    sentence = "this is the demo exchange; /var/spool/asterisk/demo/passwords has its phones with their passwords"
    assert sentence in said.stderr + said.stdout
    assert not any(value in said.stderr + said.stdout for value in passwords().values())


def test_demo_has_secrets_of_its_own(demo):
    found = engine("exec", DEMO, "sh", "-c", "cat /var/spool/asterisk/demo/*").stdout
    assert not re.search(r"@\w+@", found)
    image = engine("run", "--rm", "--entrypoint=sh", IMAGE, "-c", "cat /usr/share/labredes-pbx/demo/*").stdout
    assert not any(value in image for value in passwords().values())
    assert re.search(r"(?m)^password = @phone_6001@$", image)


def test_demo_of_yesterday_is_the_same(demo):
    before = passwords()
    start()
    first_call()
    assert passwords() == before


def test_frozen_asterisk_becomes_unhealthy(demo):
    """By the check of the image, at other times."""
    check = json.loads(engine("image", "inspect", IMAGE).stdout)[0]
    command = (check.get("Healthcheck") or check["Config"]["Healthcheck"])["Test"][1:]
    times = ["--health-start-period=1s", "--health-interval=2s", "--health-retries=3", "--health-timeout=10s"]
    # podman takes the times with the command alone.
    start(*times, *([] if ENGINE == "docker" else [f"--health-cmd={json.dumps(command)}"]))
    first_call()
    becomes("healthy")
    engine("kill", "--signal=STOP", DEMO)
    try:
        becomes("unhealthy")
    finally:
        engine("kill", "--signal=CONT", DEMO)
    becomes("healthy")


def becomes(wanted: str) -> None:
    """Assert that the engine says so of the container's health after three checks."""
    status, end = "", time.monotonic() + 60
    while status != wanted:
        assert time.monotonic() < end, status
        if ENGINE != "docker":  # without systemd it runs none by itself
            engine("healthcheck", "run", DEMO, check=False, seconds=30)
        shown = json.loads(engine("inspect", DEMO).stdout)[0]["State"]
        status = (shown.get("Health") or shown["Healthcheck"])["Status"]
        time.sleep(0.5)


def test_killed_asterisk_ends_its_container(demo):
    start()
    first_call()
    engine("kill", "--signal=KILL", DEMO)
    assert engine("wait", DEMO, seconds=20).stdout.strip() == "137"


def test_demo_in_the_place_of_an_exchange_is_not_started(demo):
    """An empty volume without the word for it is refused."""
    done = engine("run", "--rm", IMAGE, check=False)
    assert done.returncode == 78 and "LABREDES_DEMO=yes" in done.stderr
