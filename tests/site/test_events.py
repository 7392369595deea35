"""The events service of the exchange: what it lets in, what it shows, what it may do, and that a run keeps it so."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from interrupted import changes, killed
from playbook import play
from sipp import within

UNIT = "labredes-events.service"
PROGRAM = "/usr/local/lib/labredes-events"
TAGS = "--tags=events"
# Every action of AMI that this user could do harm with, and one that asks.
ACTIONS = {
    "Originate": (
        "Channel: Local/6000@from-internal\nContext: from-internal\nExten: 6000\nPriority: 1",
        "Permission denied",
    ),
    "Command": ("Command: core show version", "Permission denied"),
    "UpdateConfig": ("SrcFilename: rtp.conf\nDstFilename: rtp.conf", "Permission denied"),
    "Hangup": ("Channel: none", "Permission denied"),
    "Reload": ("", "Permission denied"),
    "Setvar": ("Variable: GLOBAL(x)\nValue: 1", "Permission denied"),
    "CoreShowChannels": ("", "Success"),
    "Getvar": ("Variable: PJSIP_AOR(6001,contact)", "Success"),
}
ASK_AMI = """
import socket, sys
secret = open("/etc/labredes-events/ami_secret").read().strip()
lines = socket.create_connection(("127.0.0.1", 5038), 5).makefile("rw", newline="")
lines.readline()
def ask(action, headers):
    message = ["Action: " + action, *headers, "ActionID: x-" + action, "", ""]
    lines.write("\\r\\n".join(message))
    lines.flush()
    answer = {}
    while answer.get("ActionID") != "x-" + action:
        answer = {}
        for line in iter(lines.readline, "\\r\\n"):
            key, _, value = line.strip().partition(": ")
            answer.setdefault(key, value)
    return answer.get("Message" if answer.get("Response") == "Error" else "Response", "")
assert ask("Login", ["Username: events", "Secret: " + secret]) == "Success"
import json
print(json.dumps({name: ask(name, headers.splitlines()) for name, headers in json.loads(sys.argv[1]).items()}))
"""


def untrusting() -> ssl.SSLContext:
    """A context that takes the lab's own certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.fixture
def client(lab) -> Callable[[Callable[[aiohttp.ClientSession], Awaitable[object]]], object]:
    """A function that runs a coroutine with a session of HTTP at the service, with cookies as a browser keeps them."""

    def run(talk):
        async def session():
            jar = aiohttp.CookieJar(unsafe=True)  # the exchange has no name here
            async with aiohttp.ClientSession(
                lab["events"]["url"],
                cookie_jar=jar,
                connector=aiohttp.TCPConnector(ssl=untrusting()),
                timeout=aiohttp.ClientTimeout(15),
            ) as http:
                return await talk(http)

        return asyncio.run(session())

    return run


async def log_in(http: aiohttp.ClientSession, lab: dict) -> None:
    """Open a session as the user that `make lab-info` names."""
    user = {name: lab["events"][name] for name in ("user", "password")}
    async with http.post("/login", json=user) as answer:
        assert answer.status == 200, await answer.text()


async def websocket(http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
    """A WebSocket, by a ticket."""
    async with http.post("/ticket") as answer:
        ticket = (await answer.json())["ticket"]
    return await http.ws_connect(f"/api?ticket={ticket}")


def status(on_lab, path: str) -> str:
    """The HTTP status that the host itself gets."""
    program = f"""import ssl, urllib.error, urllib.request as r
try:
    print(r.urlopen("https://127.0.0.1:8888{path}", context=ssl._create_unverified_context(), timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)"""
    return on_lab(f"python3 -c '{program}'").strip()


def process(on_lab) -> str:
    """The running process of the service."""
    return on_lab(f"systemctl show {UNIT} --property=MainPID,NRestarts,ActiveEnterTimestampMonotonic")


def test_service_is_hardened(on_lab):
    rating = on_lab(f"systemd-analyze security {UNIT} --no-pager | tail -n 1")
    exposure = float(re.search(r"level for \S+: ([0-9.]+) ", rating)[1])
    assert exposure <= 2.0, rating
    shown = on_lab(f"grep -E '^(Uid|Cap|NoNewPrivs|Seccomp:)' /proc/$(systemctl show -P MainPID {UNIT})/status")
    assert re.search(r"NoNewPrivs:\t1", shown) and re.search(r"Seccomp:\t2", shown), shown
    assert not re.search(r"Cap\w+:\t0*[1-9a-f]|Uid:\t0", shown), shown


def test_service_cannot_read_what_is_not_its_own(on_lab):
    secrets = "/etc/asterisk/manager.conf /etc/ssl/labredes/key.pem /var/lib/labredes/secrets.json /etc/shadow"
    user = on_lab("id -Gn labredes-events").split()
    assert user == ["labredes-events"], "it is in a group of others"
    for path in secrets.split():
        assert on_lab(f"runuser -u labredes-events -- cat {path} 2>&1 || true").endswith("Permission denied\n"), path
    assert "scrypt$" in on_lab("runuser -u labredes-events -- cat /etc/labredes-events/service.ini")
    for path in ("/etc/labredes-events/service.ini", "/etc/labredes-events/ami_secret", "/run/labredes-events/key.pem"):
        assert on_lab(f"stat -Lc '%U:%G:%a' {path}").strip() == "root:labredes-events:640"
        assert on_lab(f"runuser -u nobody -- cat {path} 2>&1 || true").endswith("Permission denied\n"), path


def test_passwords_are_not_on_the_host(on_lab, lab):
    password = lab["events"]["password"]
    assert on_lab(f"grep -rl '{password}' /etc /usr/local /var/lib /run/labredes-events || true") == ""


def test_only_named_networks_reach_it(outside_host, lab, client):
    address, port = lab["host"], lab["events"]["url"].rpartition(":")[2]
    outside_host.run("timeout", "2", "bash", "-c", f"echo >/dev/tcp/{address}/{port}")
    seen = outside_host.run(
        "bash", "-c", f"timeout 2 bash -c 'echo >/dev/tcp/{address}/{port}' && echo open || echo silent"
    )
    assert seen.strip() == "silent"

    async def health(http):
        async with http.get("/healthz") as answer:
            return answer.status

    assert client(health) == 200


def test_login_needs_the_right_password(client, lab):
    async def talk(http):
        async with http.get("/session") as answer:
            before = answer.status
        wrong = {"user": lab["events"]["user"], "password": "kR7vTz0qWm2xBn5c"}
        async with http.post("/login", json=wrong) as answer:
            refused = answer.status
        await log_in(http, lab)
        async with http.get("/session") as answer:
            return before, refused, answer.status, (await answer.json())["user"]

    assert client(talk) == (401, 401, 200, lab["events"]["user"])


def test_event_of_a_call_arrives_at_once(client, lab, telephones, records):
    telephones.answering("6002")

    async def talk(http):
        await log_in(http, lab)
        socket = await websocket(http)
        hello = json.loads((await socket.receive_str()).splitlines()[0])
        assert hello["state"] == "connected", hello
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(None, telephones.dial, "6001", "6002")
        seen: dict[str, float] = {}
        while not {"Newchannel", "DialBegin", "BridgeEnter"} <= set(seen):
            for line in (await asyncio.wait_for(socket.receive_str(), 10)).splitlines():
                message = json.loads(line)
                if message["type"] == "event":
                    seen.setdefault(message["event"], loop.time())
        answered = await call
        at = loop.time()
        await socket.close()
        return at - seen["BridgeEnter"], answered

    late, caller = client(talk)
    assert late > -1, f"the event came {-late:.1f} s after the call was answered"
    caller.hang_up()
    assert records()


def test_ami_user_only_asks(on_lab):
    questions = json.dumps({name: headers for name, (headers, _answer) in ACTIONS.items()})
    answers = json.loads(on_lab(f"python3 - '{questions}' <<'END'\n{ASK_AMI}\nEND"))
    assert answers == {name: answer for name, (_headers, answer) in ACTIONS.items()}
    assert "is not" not in on_lab("asterisk -rx 'manager show user events'")


def test_database_role_only_reads(on_lab):
    def query(statement: str) -> str:
        login = "PGPASSWORD=$(cat /etc/labredes-events/database_password) psql -h localhost -U asterisk_reader asterisk"
        return on_lab(f'cd / && {login} --no-psqlrc -Atc "{statement}" 2>&1 || true').strip()

    assert query("SELECT count(*) >= 0 FROM cdr") == "t"
    for statement in ("DELETE FROM cdr", "UPDATE cdr SET src = ''", "INSERT INTO cdr DEFAULT VALUES", "TRUNCATE cdr"):
        assert "permission denied for table cdr" in query(statement), statement
    assert "permission denied for schema public" in query("CREATE TABLE mine (n int)")


def test_renewed_certificate_keeps_connections(client, lab, lab_directory, on_lab):
    port = int(lab["events"]["url"].rpartition(":")[2])
    before = process(on_lab)
    on_lab("""cd /etc/ssl/labredes && openssl req -x509 -new -key key.pem -subj /CN=ends -days 20 -out /tmp/ends
        cat /tmp/ends >certificate.pem; rm /tmp/ends""")
    ends = on_lab("cat /etc/ssl/labredes/certificate.pem").strip()
    assert changes(lab_directory, TAGS) == 1
    assert ssl.get_server_certificate((lab["host"], port)).strip() == ends
    assert process(on_lab) == before, "the run restarted the service"

    async def talk(http):
        await log_in(http, lab)
        socket = await websocket(http)
        await socket.receive_str()
        await asyncio.get_running_loop().run_in_executor(
            None, lambda: on_lab("systemctl start labredes-certificate", seconds=60)
        )
        renewed = on_lab("openssl x509 -in /etc/ssl/labredes/certificate.pem").strip()
        served = ssl.get_server_certificate((lab["host"], port)).strip()
        await socket.ping()
        open_still = not socket.closed
        async with http.get("/session") as answer:
            return served == renewed != ends, open_still, answer.status

    assert client(talk) == (True, True, 200)
    assert process(on_lab) == before


@pytest.mark.parametrize("step", ["Write the program, its configuration and the units#1:after"])
def test_killed_run_is_completed_by_the_next(lab_directory, on_lab, client, lab, step):
    async def metrics(http):
        async with http.get("/metrics") as answer:
            return answer.status, await answer.text()

    assert client(metrics)[0] == 403 and status(on_lab, "/metrics") == "200"
    on_lab(f"echo '# by hand' >>{PROGRAM}/apir_py/__init__.py; touch {PROGRAM}/apir_py/stray.py")
    here = on_lab("ip route get 1 | sed -n 's/.* via \\([0-9.]*\\) .*/\\1/p'").strip()
    other = {"events_metrics_networks": [here]}
    before = process(on_lab)
    try:
        killed(lab_directory, step, TAGS, **other)
        assert process(on_lab) == before and client(metrics)[0] == 403, "the killed run restarted the service"
        assert on_lab(f"ls {PROGRAM}/apir_py/stray.py 2>&1 || true").count("No such file") == 1
        assert "by hand" not in on_lab(f"cat {PROGRAM}/apir_py/__init__.py")
        assert changes(lab_directory, TAGS, **other) == 1
        assert within(10, lambda: client(metrics)[0] == 200)
        assert "apir_py_exchange_connected 1" in client(metrics)[1]
        assert changes(lab_directory, TAGS, **other) == 0
    finally:
        assert changes(lab_directory, TAGS) == 2
    assert within(10, lambda: status(on_lab, "/healthz") == "200")


def test_service_that_is_disabled_is_gone(lab_directory, on_lab, lab):
    both = "--tags=asterisk,events"
    secrets = lab_directory / "secrets"
    done = play(lab_directory, both, "-e", "labredes_events_enabled=false")
    try:
        assert done.returncode == 0, done.stdout[-3000:]
        assert on_lab(f"systemctl cat {UNIT} 2>&1 || true").startswith("No files found")
        assert on_lab(f"ls -d {PROGRAM} /etc/labredes-events 2>/dev/null || true") == ""
        assert "events" not in on_lab("asterisk -rx 'manager show users'").split()
        assert "8888" not in on_lab("ss -Hltn")
        again = play(lab_directory, both, "-e", "labredes_events_enabled=false")
        assert re.search(r"changed=0\b.*failed=0", again.stdout), again.stdout[-2000:]
    finally:
        for kept in secrets.glob("*/archive-*/*"):
            if kept.name in ("ami_events", f"events_{lab['events']['user']}"):
                kept.rename(kept.parents[1] / kept.name)
        assert changes(lab_directory, both) > 0
    assert within(10, lambda: status(on_lab, "/healthz") == "200")
