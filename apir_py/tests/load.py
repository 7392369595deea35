"""Load the service with WebSocket clients and events at a rate; prints what it measured as JSON.

    python tests/load.py --clients 50 --rate 1000 --seconds 60

The service runs in a process of its own. Every client counts what it gets; one of them also measures the delay from the
AMI socket to its own, and one never reads. Fails where an event is missing, or where the client that never reads is
still there although more events were sent than its backlog and the buffers of both sides hold.
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

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import aiohttp  # noqa: E402  the path has to be set first
from fake_ami import FakeAmi, message, until  # noqa: E402
from running_service import cheap_hash  # noqa: E402

ENOUGH = 20_000
"""Events that fill every buffer of a client that does not read."""
BURST = 0.01
"""Seconds between two sends of the fake AMI."""


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


def usage(pid: int) -> tuple[int, float]:
    """Memory in KiB and CPU seconds of a process."""
    status = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(status), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(clients: int, rate: int, seconds: float, directory: Path) -> dict[str, object]:
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
            sys.executable, "-m", "apir_py", "serve", directory / "events.ini", env=environment
        )
        try:
            await until(lambda: ami.writers)
            trust = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=certificate), limit=0)
            async with aiohttp.ClientSession(connector=trust, cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
                return await measure(ami, http, f"https://127.0.0.1:{port}", process.pid, clients, rate, seconds)
        finally:
            process.terminate()
            await process.wait()


async def measure(
    ami: FakeAmi, http: aiohttp.ClientSession, url: str, pid: int, clients: int, rate: int, seconds: float
) -> dict[str, object]:
    """Connect the clients, send the events, wait until they have come."""
    await http.post(f"{url}/login", json={"user": "ana", "password": "right"})
    readers = [Reader([]), *(Reader() for _ in range(clients - 1))]
    tasks, stuck = [], None
    for reader in [*readers, None]:
        ticket = (await (await http.post(f"{url}/ticket")).json())["ticket"]
        opened = await http.ws_connect(f"{url}/api?ticket={ticket}", max_msg_size=0)
        if reader:
            tasks.append(asyncio.ensure_future(reader.run(opened)))
        else:
            stuck = opened
    assert stuck
    stuck._response.connection.transport.pause_reading()
    memory, cpu = usage(pid)
    memories = []
    started, sent = time.monotonic(), 0
    while (gone := time.monotonic() - started) < seconds:
        due = int(gone * rate)
        text = {"Event": "UserEvent", "Privilege": "user,all", "Filler": "x" * 400}
        ami.send(b"".join(message(text, N=str(n), Sent=repr(time.time())) for n in range(sent, due)))
        sent = due
        memories.append(usage(pid)[0])
        await asyncio.sleep(BURST)
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
        "events": sent,
        "missing": sum(sent - reader.count for reader in readers),
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = asyncio.run(load(options.clients, options.rate, options.seconds, Path(name)))
    print(json.dumps(figures, indent=1))
    sys.exit(figures["missing"] != 0 or not (figures["stuck_client_dropped"] or figures["events"] < ENOUGH))
