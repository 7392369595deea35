"""The service in the same loop, on a free port, and a client that trusts its certificate."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
import ssl
import time

import aiohttp
from apir_py.ami import Settings
from apir_py.config import Config, User
from apir_py.event import Filter
from apir_py.server import Service
from fake_ami import FakeAmi, until


def cheap_hash(password: str) -> str:
    """A hash that costs no time."""
    salt = b"salt"
    found = hashlib.scrypt(password.encode(), salt=salt, n=2, r=1, p=1, dklen=32)
    return f"scrypt$2$1$1${base64.b64encode(salt).decode()}${base64.b64encode(found).decode()}"


class Running:
    """A running service with the users ana, who sees everything, and luis, who sees queues. Options are Config's."""

    def __init__(self, ami: FakeAmi, certificate: tuple, **options: object) -> None:
        """Times of the exchange are short."""
        self.certificate = certificate
        config = Config(
            exchange=Settings("127.0.0.1", ami.port, "monitor", "s3cret", first_delay=0.02),
            addresses=["127.0.0.1"],
            port=0,
            certificate=certificate[0],
            key=certificate[1],
            origins=[],
            metrics_networks=[],
            users={
                "ana": User(cheap_hash("right"), Filter()),
                "luis": User(cheap_hash("right"), Filter(events=["Queue*"])),
            },
            session_seconds=3600,
            ticket_seconds=30,
            login_failures=5,
            login_seconds=60,
            backlog_events=5000,
            backlog_bytes=4 << 20,
            websockets_per_user=50,
            connections=500,
            connections_per_address=100,
            request_seconds=10,
        )
        self.service = Service(dataclasses.replace(config, **options))

    async def __aenter__(self) -> Running:
        """Start it and connect to the exchange."""
        await self.service.start()
        self.port = self.service.servers[0].sockets[0].getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self.task = asyncio.ensure_future(self.service.run())
        self.http = self.client()
        await until(lambda: self.service.hub.connected)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it."""
        self.task.cancel()
        await self.http.close()
        await self.service.stop()

    def client(self) -> aiohttp.ClientSession:
        """A client with cookies of its own."""
        trust = ssl.create_default_context(cafile=self.certificate[0])
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust), cookie_jar=aiohttp.CookieJar(unsafe=True)
        )

    async def post(self, path: str, body: object = None, **headers: str) -> tuple[int, dict]:
        """Status and JSON of a POST."""
        async with self.http.post(self.url + path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and text of a GET."""
        async with self.http.get(self.url + path, headers=headers) as response:
            return response.status, await response.text()

    async def login(self, user: str = "ana", password: str = "right") -> int:
        """Log in; gives the status."""
        return (await self.post("/login", {"user": user, "password": password}))[0]

    async def ticket(self) -> str:
        """A ticket of whoever has logged in."""
        status, answer = await self.post("/ticket")
        assert status == 200, answer
        return answer["ticket"]

    async def socket(self, user: str = "ana", messages: str = "") -> Socket:
        """Log in and open a WebSocket."""
        assert await self.login(user) == 200
        url = f"{self.url}/api?ticket={await self.ticket()}" + (f"&messages={messages}" if messages else "")
        return Socket(await self.http.ws_connect(url, max_msg_size=0))


class Socket:
    """A WebSocket of a client. `objects` is what has come."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """See the class."""
        self.socket = socket
        self.objects: list[dict] = []

    async def read(self, number: int = 1) -> list[dict]:
        """Wait until so many objects have come since the last call; gives them."""
        while len(self.objects) < number:
            message = await self.socket.receive(timeout=5)
            assert message.type == aiohttp.WSMsgType.TEXT, message
            self.objects += map(json.loads, message.data.split("\n"))
        found, self.objects = self.objects[:number], self.objects[number:]
        return found

    async def end(self) -> tuple[int | None, str]:
        """Read to the end; gives close code and reason."""
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            message = await self.socket.receive(timeout=8)
            if message.type == aiohttp.WSMsgType.TEXT:
                self.objects += map(json.loads, message.data.split("\n"))
            else:
                return message.data if message.type == aiohttp.WSMsgType.CLOSE else self.socket.close_code, str(
                    message.extra or ""
                )
        raise AssertionError("it did not end")
