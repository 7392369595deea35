"""Load the service with WebSocket clients and events at a rate; prints what it measured as JSON.

    python tests/load.py --clients 50 --rate 1000 --seconds 60
    python tests/load.py --clients 50 --rate 1000 --seconds 60 --state

With --state the events are those of calls, and the clients ask for state: each must have seen every call come and go,
while the service asks again and again which channels there are.

The service runs in a process of its own. Every client counts what it gets; one of them also measures the delay from the
AMI socket to its own, and one never reads. Fails where an event is missing, or where the client that never reads is
still there although more events were sent than its backlog and the buffers of both sides hold, or where memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import aiohttp  # noqa: E402  the path has to be set first
from fake_ami import FakeAmi, message, until  # noqa: E402
from recorded import Pbx  # noqa: E402
from running_service import cheap_hash  # noqa: E402

ENOUGH = 20_000
"""Events that fill every buffer of a client that does not read."""
MOST_AT_ONCE = 200
"""Events of calls in one send, so that no call begins and ends before the service has sent it."""
BURST = 0.01
"""Seconds between two sends of the fake AMI."""
MOST_GROWTH = 8 << 10
"""KiB of memory that the service may need more at the end than in the middle."""
SERVE = "import sys; from apir_py import cli, watch; watch.ROUND = 2; sys.exit(cli.main())"
"""The service, which asks the exchange for everything every two seconds instead of every minute."""


class Reader:
    """A client that counts events; with `delays` it measures them as well."""

    def __init__(self, delays: list[float] | None = None) -> None:
        """See the class."""
        self.delays, self.count = delays, 0

    async def run(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Read to the end."""
        async for frame in socket:
            lines = frame.data.split("\n")
            self.count += sum('"event":"UserEvent"' in line for line in lines)
            if self.delays is not None:
                now = time.time()
                self.delays += [now - float(json.loads(line)["fields"]["Sent"]) for line in lines if '"Sent"' in line]


class StateReader(Reader):
    """A client that follows calls; `count` is of those that have gone."""

    async def run(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Read to the end."""
        there: set[str] = set()
        async for frame in socket:
            self.count += frame.data.count('"topic":"calls","id":')
            if self.delays is None:
                continue
            for line in map(json.loads, frame.data.split("\n")):
                if line["type"] == "gone":
                    there.remove(line["id"])
                elif line["type"] == "change" and line["topic"] == "calls" and line["item"]["id"] not in there:
                    there.add(line["item"]["id"])
                    self.delays.append(time.time() - float(line["item"]["caller"]["name"]))


class Calls:
    """Calls between two numbers, one beginning as another ends; `count` is of those that have ended."""

    def __init__(self) -> None:
        """None yet."""
        self.events: list[bytes] = []
        self.pbx = Pbx(lambda event: self.events.append(message({"Event": event.name}, **event.fields)))
        self.open: list[tuple[str, str]] = []
        self.count = self.sent = 0

    def until(self, due: int, last: bool = False) -> bytes:
        """Events until so many have been sent; `last`: and those that end all calls. Two hundred calls are open."""
        while self.sent + len(self.events) < due and not last:
            pbx, name = self.pbx, repr(time.time())
            a = pbx.new("PJSIP/6001", "6001", "6002", caller_name=name)
            b = pbx.new("PJSIP/6002", "6002", "", "0", linked=a)
            pbx.dial(a, b)
            pbx.talk(a, b)
            self.open.append((a, b))
            self.end(200)
        if last:
            self.end(0)
        found, self.events = self.events, []
        self.sent += len(found)
        return b"".join(found)

    def end(self, most: int) -> None:
        """End calls until so many are open."""
        while len(self.open) > most:
            self.pbx.hang_up(*self.open.pop(0))
            self.count += 1


def usage(pid: int) -> tuple[int, float]:
    """Memory in KiB and CPU seconds of a process."""
    status = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(status), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(clients: int, rate: int, seconds: float, state: bool, directory: Path) -> dict[str, Any]:
    """Run it all; gives the figures."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with FakeAmi() as ami:
        certificate, key = directory / "certificate.pem", directory / "key.pem"
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=load"
        names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
        subprocess.run([*command.split(), *names], capture_output=True, check=True)
        (directory / "secret").write_text("s3cret")
        (directory / "events.ini").write_text(
            f"[exchange]\nport = {ami.port}\nusername = monitor\nsecret_file = {directory}/secret\n"
            f"[server]\naddress = 127.0.0.1\nport = {port}\ncertificate = {certificate}\nkey = {key}\n"
            f"websockets_per_user = {clients + 1}\n[user ana]\npassword = {cheap_hash('right')}\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SERVE, "serve", directory / "events.ini"), env=environment
        )
        try:
            await until(lambda: ami.writers, 60)
            trust = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=certificate), limit=0)
            async with aiohttp.ClientSession(connector=trust, cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
                return await measure(ami, http, f"https://127.0.0.1:{port}", process.pid, clients, rate, seconds, state)
        finally:
            process.terminate()
            await process.wait()


async def measure(
    ami: FakeAmi, http: aiohttp.ClientSession, url: str, pid: int, clients: int, rate: int, seconds: float, state: bool
) -> dict[str, Any]:
    """Connect the clients, send the events, wait until they have come."""
    await http.post(f"{url}/login", json={"user": "ana", "password": "right"})
    kind = StateReader if state else Reader
    readers = [kind([]), *(kind() for _ in range(clients - 1))]
    tasks, stuck = [], None
    for reader in [*readers, None]:
        ticket = (await (await http.post(f"{url}/ticket")).json())["ticket"]
        wanted = ("state" if state else "events") if reader else "both"  # changes alone would not fill the buffers
        opened = await http.ws_connect(f"{url}/api?ticket={ticket}&messages={wanted}", max_msg_size=0)
        if reader:
            tasks.append(asyncio.ensure_future(reader.run(opened)))
        else:
            stuck = opened
    assert stuck
    stuck._response.connection.transport.pause_reading()
    memory, cpu = usage(pid)
    memories = []
    calls = Calls()
    ami.rows = {"BridgeList": calls.pbx.bridge_rows, "CoreShowChannels": calls.pbx.channel_rows}
    started, sent = time.monotonic(), 0
    while (gone := time.monotonic() - started) < seconds:
        due = int(gone * rate)
        if state:
            ami.send(calls.until(min(due, calls.sent + MOST_AT_ONCE)))
            memories.append(usage(pid)[0])
            await asyncio.sleep(BURST)
            continue
        text = {"Event": "UserEvent", "Privilege": "user,all", "Filler": "x" * 400}
        ami.send(b"".join(message(text, N=str(n), Sent=repr(time.time())) for n in range(sent, due)))
        sent = due
        memories.append(usage(pid)[0])
        await asyncio.sleep(BURST)
    if state:
        await asyncio.sleep(0.5)  # so that the last calls are seen before they end
        ami.send(calls.until(0, last=True))
        sent = calls.count
    await until(lambda: all(reader.count >= sent for reader in readers), 60)
    busy = usage(pid)[1] - cpu
    async with http.get(f"{url}/metrics") as response:
        dropped = 'apir_py_websockets_closed_total{code="4008"} 1\n' in await response.text()
    stuck._response.connection.transport.abort()
    for task in tasks:
        task.cancel()
    delays = sorted(readers[0].delays or [])
    return {
        "clients": clients,
        "events": calls.sent if state else sent,
        "missing": sum(sent - reader.count for reader in readers),
        "lists_of_channels": sum(action["Action"] == "CoreShowChannels" for action in ami.actions),
        "delay_ms": {"median": delays[len(delays) // 2] * 1000, "p99": delays[len(delays) * 99 // 100] * 1000},
        "cpu_share": busy / (time.monotonic() - started),
        "memory_kib": {"before": memory, "middle": memories[len(memories) // 2], "end": memories[-1]},
        "stuck_client_dropped": dropped,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Load the service.")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rate", type=int, default=1000, help="events a second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--state", action="store_true", help="events of calls, and clients that ask for state")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = asyncio.run(load(options.clients, options.rate, options.seconds, options.state, Path(name)))
    print(json.dumps(figures, indent=1))
    grown = figures["memory_kib"]["end"] - figures["memory_kib"]["middle"] > MOST_GROWTH
    stuck = figures["events"] >= ENOUGH and not figures["stuck_client_dropped"]
    sys.exit(figures["missing"] != 0 or grown or stuck)
