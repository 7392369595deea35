"""The phone's WebSocket, between a client and an HTTP server that stands for Asterisk's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as sockets
import ssl
import time

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from fake_ami import FakeAmi, until
from running_service import Running

REGISTER = 'REGISTER sip:pbx SIP/2.0\r\nContact: <sip:6001@x;transport=ws>;name="Ñandú"\r\n\r\n'


class FakeAsterisk:
    """Answers each SIP message with itself in upper case, unless it is stuck."""

    def __init__(self, port: int, protocols: tuple = ("sip",)) -> None:
        """`seen` holds the messages, `sockets` the open WebSockets."""
        self.port, self.protocols = port, protocols
        self.seen: list[str] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.closed: list[int | None] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def __aenter__(self) -> FakeAsterisk:
        """Listen."""
        app = web.Application()
        app.add_routes([web.get("/ws", self.serve)])
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything, as a crash does."""
        for socket in self.sockets:
            if socket._req and socket._req.transport:
                socket._req.transport.abort()
        await self.runner.cleanup()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One WebSocket."""
        socket = web.WebSocketResponse(protocols=self.protocols, max_msg_size=0)
        await socket.prepare(request)
        self.sockets.append(socket)
        while True:
            await self.reads.wait()
            message = await socket.receive()
            if message.type != WSMsgType.TEXT:
                break
            self.seen.append(message.data)
            await socket.send_str(message.data.upper())
        self.sockets.remove(socket)
        self.closed.append(socket.close_code)
        return socket


@contextlib.asynccontextmanager
async def calling(certificate, port, **options):
    """The service with a phone, and a fake Asterisk behind it."""
    url = f"ws://127.0.0.1:{port}/ws"
    async with FakeAmi() as ami, FakeAsterisk(port) as asterisk, Running(ami, certificate, phone=url, **options) as run:
        yield asterisk, run


async def phone(service, user="ana", **more):
    """Log in and open the phone's WebSocket."""
    if user:
        assert await service.login(user) == 200
    options = {"protocols": ("sip",), "origin": service.url, "max_msg_size": 0, **more}
    return await service.http.ws_connect(f"{service.url}/ws", **options)


async def end_of(socket):
    """Read to the end; gives close code and reason."""
    while True:
        message = await socket.receive(timeout=5)
        if message.type == WSMsgType.CLOSE:
            return message.data, message.extra
        if message.type != WSMsgType.TEXT:
            return socket.close_code, ""


async def test_sip_passes_both_ways(certificate, free_port):
    async with calling(certificate, free_port) as (asterisk, service):
        socket = await phone(service)
        assert socket.protocol == "sip"
        for text in (REGISTER, "\r\n\r\n", REGISTER + "x" * 60_000):
            await socket.send_str(text)
            assert await socket.receive_str(timeout=5) == text.upper()
        assert len(asterisk.seen) == 3
        assert (await service.get("/session"))[1].count('"phone": true') == 1
        await socket.close()
        await until(lambda: asterisk.closed == [1000])
        await until(lambda: not service.service.sip.phones)


async def test_thousand_messages_arrive_whole_and_in_order(certificate, free_port):
    async with calling(certificate, free_port) as (_, service):
        socket = await phone(service)
        sending = asyncio.ensure_future(send_all(socket, [f"m{number}" for number in range(1000)]))
        assert [await socket.receive_str(timeout=5) for _ in range(1000)] == [f"M{number}" for number in range(1000)]
        await sending


async def send_all(socket, texts):
    """Send one after the other."""
    for text in texts:
        await socket.send_str(text)


@pytest.mark.parametrize(
    ("user", "options", "status"),
    [
        ("", {}, 401),
        ("ana", {"origin": "https://evil.example.com"}, 403),
        ("ana", {"origin": "null"}, 403),
        ("ana", {"origin": None}, 403),
        ("", {"origin": "https://evil.example.com"}, 403),
        ("ana", {"protocols": ()}, 400),
        ("ana", {"protocols": ("xmpp", "sips")}, 400),
    ],
)
async def test_phone_that_may_not_is_refused_before(certificate, free_port, user, options, status):
    async with calling(certificate, free_port) as (asterisk, service):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await phone(service, user, **options)
        assert (refused.value.status, asterisk.sockets) == (status, [])


async def test_request_that_is_no_websocket_is_refused(certificate, free_port):
    async with calling(certificate, free_port) as (asterisk, service):
        await service.login()
        headers = {"Origin": service.url, "Sec-WebSocket-Protocol": "sip"}
        assert (await service.get("/ws", **headers))[0] == 400
        assert (await service.get("/ws", Origin=service.url))[0] == 400
        assert not asterisk.sockets


async def test_service_without_a_phone_says_so(certificate):
    async with FakeAmi() as ami, Running(ami, certificate) as service:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await phone(service)
        assert refused.value.status == 404
        assert '"phone": false' in (await service.get("/session"))[1]


async def test_websockets_of_both_kinds_are_counted_together(certificate, free_port):
    async with calling(certificate, free_port, websockets_per_user=2) as (_, service):
        kept = [await phone(service), await service.socket()]
        for attempt in (phone(service), service.socket()):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await attempt
            assert refused.value.status == 429
        kept.append(await phone(service, "luis"))
        await until(lambda: len(service.service.sip.phones) == 2)


async def test_exchange_that_is_not_there_is_said(certificate, free_port):
    async with FakeAmi() as ami, Running(ami, certificate, phone=f"ws://127.0.0.1:{free_port}/ws") as service:
        expected = (1013, "the exchange is not there; it is tried again")
        assert await end_of(await phone(service)) == expected
        async with FakeAsterisk(free_port, protocols=("other",)):
            assert await end_of(await phone(service)) == expected
        async with FakeAsterisk(free_port):
            socket = await phone(service)
            await socket.send_str("x")
            assert await socket.receive_str() == "X"


async def test_exchange_that_never_answers_is_said(certificate, free_port, monkeypatch):
    monkeypatch.setattr("apir_py.sip_proxy.CONNECT_WITHIN", 0.2)
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", free_port)
    async with FakeAmi() as ami, Running(ami, certificate, phone=f"ws://127.0.0.1:{free_port}/ws") as service:
        assert (await end_of(await phone(service)))[0] == 1013
    silent.close()


async def test_exchange_that_goes_ends_the_phone_with_the_reason(certificate, free_port):
    async with calling(certificate, free_port) as (asterisk, service):
        first, second = await phone(service), await phone(service)
        await until(lambda: len(asterisk.sockets) == 2)
        await asterisk.sockets[0].close(code=1001)
        assert await end_of(first) == (1013, "the exchange has closed the connection; it is tried again")
        asterisk.sockets[0]._req.transport.abort()
        assert (await end_of(second))[0] == 1013
        await until(lambda: not service.service.sip.phones)


async def test_logout_and_time_end_the_phone(certificate, free_port):
    async with calling(certificate, free_port, session_seconds=1) as (asterisk, service):
        late = await phone(service)
        assert await end_of(late) == (4001, "the session has ended")
        out = await phone(service)
        await until(lambda: asterisk.sockets)
        await service.post("/logout")
        assert await end_of(out) == (4001, "the session has ended")
        await until(lambda: len(asterisk.closed) == 2)


async def test_end_of_the_service_is_said_to_phones(certificate, free_port):
    async with calling(certificate, free_port) as (asterisk, service):
        socket = await phone(service)
        await until(lambda: asterisk.sockets)
        stopping = asyncio.ensure_future(service.service.stop())
        assert await end_of(socket) == (1001, "the service ends")
        await stopping
        await until(lambda: not asterisk.sockets)


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (lambda socket: socket.send_bytes(os.urandom(64)), 1003),
        (lambda socket: socket.send_str("x" * 70_000), 1009),
        (lambda socket: write(socket, b"\xff" * 200), 1002),
        (lambda socket: write(socket, b"\x81\x82\0\0\0\0\xff\xff"), 1007),
    ],
)
async def test_garbage_of_a_phone_ends_it_alone(certificate, free_port, send, code):
    async with calling(certificate, free_port) as (asterisk, service):
        talker, other = await phone(service), await phone(service)
        await until(lambda: len(asterisk.sockets) == 2)
        await send(talker)
        assert (await end_of(talker))[0] == code
        await until(lambda: len(asterisk.sockets) == 1)
        await other.send_str("x")
        assert await other.receive_str(timeout=5) == "X"
        assert service.service.ends == {str(code): 1}
        assert asterisk.seen == ["x"], "it has reached the exchange"


async def write(socket, data):
    """Send bytes that are no WebSocket."""
    socket._response.connection.transport.write(data)


async def test_oversized_message_of_the_exchange_ends_the_phone(certificate, free_port):
    async with calling(certificate, free_port) as (asterisk, service):
        socket = await phone(service)
        await until(lambda: asterisk.sockets)
        await asterisk.sockets[0].send_str("x" * 70_000)
        assert (await end_of(socket))[0] == 1009


async def test_exchange_that_does_not_read_stops_the_browser(certificate, free_port):
    async with calling(certificate, free_port) as (asterisk, service):
        asterisk.reads.clear()
        socket, other = await phone(service), await phone(service, "luis")
        sent = 0
        with contextlib.suppress(asyncio.TimeoutError):
            while sent < 2000:  # 100 MB
                await asyncio.wait_for(socket.send_str("x" * 50_000), 0.5)
                sent += 1
        assert 0 < sent < 1000, "something holds more than 50 MB"
        asterisk.reads.set()
        await other.send_str("x")
        assert await other.receive_str(timeout=5) == "X"


async def test_browser_that_does_not_read_stops_the_exchange(certificate, free_port):
    async with calling(certificate, free_port) as (asterisk, service):
        socket = await phone(service)
        await until(lambda: asterisk.sockets)
        socket._response.connection.transport.pause_reading()
        sent = 0
        with contextlib.suppress(asyncio.TimeoutError):
            while sent < 2000:
                await asyncio.wait_for(asterisk.sockets[0].send_str("x" * 50_000), 0.5)
                sent += 1
        assert 0 < sent < 1000, "something holds more than 50 MB"


async def test_browser_that_answers_no_ping_is_noticed(certificate, free_port, monkeypatch):
    monkeypatch.setattr("apir_py.server.HEARTBEAT", 0.2)
    monkeypatch.setattr("apir_py.sip_proxy.HEARTBEAT", 0.4)
    monkeypatch.setattr("apir_py.server.CLOSE_WITHIN", 0.2)
    async with calling(certificate, free_port) as (asterisk, service):
        socket = await phone(service)
        await until(lambda: asterisk.sockets)
        answering = asyncio.ensure_future(socket.receive())
        await asyncio.sleep(1)
        assert service.service.sip.phones, "a living browser has been cut off"
        answering.cancel()
        socket._response.connection.transport.pause_reading()
        door = service.service.door
        (entry,) = (entry for entry in door.entries.values() if entry.address is None)
        started = time.monotonic()
        await until(lambda: not asterisk.sockets and not service.service.sip.phones)
        await until(lambda: entry not in door.entries.values())
        assert time.monotonic() - started < 1.5


async def test_thousand_strangers_delay_no_phone(certificate, free_port):
    async with calling(certificate, free_port) as (_, service):
        socket = await phone(service)
        await socket.send_str("x")
        assert await socket.receive_str() == "X"
        door = service.service.door
        opening = asyncio.get_running_loop().run_in_executor(None, strangers, service.port, 1_000)
        delays = []
        while not opening.done():
            started = time.perf_counter()
            await socket.send_str("x")
            assert await socket.receive_str(timeout=5) == "X"
            delays.append(time.perf_counter() - started)
            assert door.counted <= 100
            await asyncio.sleep(0.02)
        opening.result()
        assert sorted(delays)[len(delays) // 2] < 0.2
        await until(lambda: not door.by_address)
        assert (await service.get("/healthz"))[0] == 200


def strangers(port, number):
    """Open so many connections, 40 at a time, and ask for the page or the phone in clear."""
    for _ in range(0, number, 40):
        opened = [sockets.create_connection(("127.0.0.1", port)) for _ in range(40)]
        for index, connection in enumerate(opened):
            with contextlib.suppress(OSError):  # refused already
                connection.send(b"GET / HTTP/1.1\r\n\r\n" if index % 2 else b"GET /ws HTTP/1.1\r\n\r\n")
            connection.close()


@pytest.mark.parametrize("path", ["/", "/ws"])
async def test_requests_without_a_login_open_nothing(certificate, free_port, path):
    async with calling(certificate, free_port) as (asterisk, service):
        origin = {"Origin": service.url, "Upgrade": "websocket", "Connection": "Upgrade"}
        statuses = {(await service.get(path, **origin))[0] for _ in range(200)}
        assert statuses == ({401} if path == "/ws" else {200})
        assert not asterisk.sockets


HUGE = {
    "one": "Cookie: __Host-session=" + "x" * 20_000,
    "many": "X: y\r\n" * 20_000 + "Z: 1",
    "endless": "X: y\r\n" * 10**6,
}


@pytest.mark.parametrize("header", HUGE)
async def test_huge_headers_are_refused(certificate, free_port, header):
    trust = ssl.create_default_context(cafile=certificate[0])
    async with calling(certificate, free_port) as (asterisk, service):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port, ssl=trust)
        writer.write(f"GET /healthz HTTP/1.1\r\nHost: pbx\r\n{HUGE[header]}\r\n\r\n".encode())
        answer = b""
        with contextlib.suppress(ConnectionError):  # cut off before all was sent
            answer = await asyncio.wait_for(reader.read(12), 3)
        assert answer[9:] == (b"400" if header == "one" else b"")
        writer.transport.abort()
        assert ((await service.get("/healthz"))[0], asterisk.sockets) == (200, [])
