"""The service, over TLS with real clients: who gets in, who gets which event, who is cut off and why."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket as sockets
import ssl
import time

import aiohttp
import pytest
from fake_ami import FakeAmi, message, until
from running_service import Running, cheap_hash


@contextlib.asynccontextmanager
async def running(certificate, **options):
    """A fake exchange and the service on it."""
    async with FakeAmi() as ami, Running(ami, certificate, **options) as service:
        yield ami, service


async def test_event_reaches_every_client(certificate):
    async with running(certificate) as (ami, service):
        clients = [await service.socket() for _ in range(3)]
        ami.event("Newchannel", CallerIDName="<script>alert(1)</script> Recepción")
        for client in clients:
            hello, event = await client.read(2)
            assert (hello["v"], hello["type"], hello["user"], hello["state"]) == (1, "hello", "ana", "connected")
            assert (event["v"], event["type"], event["event"]) == (1, "event", "Newchannel")
            assert event["fields"]["CallerIDName"] == "<script>alert(1)</script> Recepción"


async def test_user_sees_his_events_alone(certificate):
    async with running(certificate) as (ami, service):
        client = await service.socket("luis")
        ami.event("Newchannel")
        ami.event("QueueCallerJoin")
        assert [found.get("event") for found in await client.read(2)] == [None, "QueueCallerJoin"]


async def test_thousand_events_reach_a_reader_whole_and_in_order(certificate):
    async with running(certificate) as (ami, service):
        client = await service.socket()
        await client.read()
        for start in range(0, 1000, 50):
            ami.send(b"".join(message({"Event": "E", "N": str(n)}) for n in range(start, start + 50)))
            await asyncio.sleep(0.005)
        assert [found["fields"]["N"] for found in await client.read(1000)] == [str(n) for n in range(1000)]


async def test_event_of_64_kilobytes_reaches_the_client(certificate):
    async with running(certificate) as (ami, service):
        client = await service.socket()
        ami.event("UserEvent", Body="x" * 65536)
        assert (await client.read(2))[1]["fields"]["Body"] == "x" * 65536


async def test_event_reaches_the_client_within_100_milliseconds(certificate):
    async with running(certificate) as (ami, service):
        client = await service.socket()
        await client.read()
        delays = []
        for _ in range(30):
            started = time.perf_counter()
            ami.event("Hangup")
            await client.read()
            delays.append(time.perf_counter() - started)
    assert sorted(delays)[15] < 0.1


async def test_client_hears_that_the_exchange_went_and_came_back(certificate):
    async with running(certificate) as (ami, service):
        client = await service.socket()
        ami.send(b"Event: Hangup\r\nChannel: PJS")
        ami.drop()
        await until(lambda: ami.writers)
        ami.event("Hangup")
        found = await client.read(4)
    assert [line["type"] for line in found] == ["hello", "exchange", "exchange", "event"]
    assert [line.get("state") for line in found] == ["connected", "lost", "connected", None]
    assert found[1]["reason"] == "the exchange closed the connection"


async def test_refused_ami_login_is_tried_again(certificate):
    async with FakeAmi() as ami:
        service = Running(ami, certificate)
        object.__setattr__(service.service.exchange.settings, "secret", "wrong")
        task = asyncio.ensure_future(service.service.run())
        await until(lambda: len([action for action in ami.actions if action["Action"] == "Login"]) > 1)
        task.cancel()
        assert service.service.hub.reason == "Authentication failed"


async def test_health_follows_the_exchange(certificate):
    async with running(certificate) as (ami, service):
        assert await service.get("/healthz") == (200, '{"exchange": "connected"}')
        ami.server.close()
        ami.drop()
        await until(lambda: not service.service.hub.connected)
        assert await service.get("/healthz") == (503, '{"exchange": "lost"}')


async def test_metrics_are_for_named_networks(certificate):
    async with running(certificate) as (_, service):
        assert (await service.get("/metrics"))[0] == 403
    async with running(certificate, metrics_networks=[ipaddress.ip_network("127.0.0.0/8")]) as (ami, service):
        client = await service.socket()
        ami.event("Hangup")
        await client.read(2)
        status, text = await service.get("/metrics")
    assert status == 200
    assert {
        "apir_py_exchange_connected 1",
        "apir_py_events_total 1",
        "apir_py_websockets 1",
        'apir_py_logins_total{result="accepted"} 1',
    } <= set(text.splitlines())


@pytest.mark.parametrize(("user", "password"), [("ana", "wrong"), ("nobody", "right"), ("ana", ""), ("", "")])
async def test_wrong_login_is_refused_alike(certificate, user, password):
    async with running(certificate) as (_, service):
        answer = await service.post("/login", {"user": user, "password": password})
        assert answer == (401, {"error": "user or password is wrong"})
        assert (await service.post("/ticket"))[0] == 401


NONSENSE = [b"", b"{", b"[]", b'"x"', b'{"user": 1, "password": 2}', b'{"user": "ana"}', b"[" * 4000, b"\xff"]


@pytest.mark.parametrize("body", NONSENSE)
async def test_login_that_makes_no_sense_is_refused(certificate, body):
    async with running(certificate) as (_, service), service.http.post(f"{service.url}/login", data=body) as response:
        assert (response.status, (await response.json())["error"][:16]) == (400, "the body should ")


async def test_login_that_is_too_large_is_refused(certificate):
    async with running(certificate) as (_, service):
        assert (await service.post("/login", {"user": "a" * 10000, "password": ""}))[0] == 413


async def test_failed_logins_are_limited(certificate):
    async with running(certificate, login_failures=3) as (_, service):
        assert [await service.login(password="wrong") for _ in range(3)] == [401] * 3
        assert await service.login() == 429


async def test_logins_at_once_are_limited(certificate):
    async with running(certificate, login_failures=3) as (_, service):
        statuses = await asyncio.gather(*[service.login(password="wrong") for _ in range(20)])
    assert sorted(statuses) == [401] * 3 + [429] * 17


async def test_right_logins_are_not_limited(certificate):
    async with running(certificate, login_failures=3) as (_, service):
        assert {await service.login() for _ in range(5)} == {200}


async def test_session_cookie_is_kept_from_scripts_and_other_sites(certificate):
    async with running(certificate) as (_, service):
        body = {"user": "ana", "password": "right"}
        async with service.http.post(f"{service.url}/login", json=body) as response:
            cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("__Host-session=")
    assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


async def test_session_says_whose_it_is(certificate):
    async with running(certificate) as (_, service):
        assert (await service.get("/session"))[0] == 401
        await service.login()
        status, text = await service.get("/session")
    assert status == 200
    assert '"user": "ana"' in text


@pytest.mark.parametrize("ticket", ["", "?ticket=", "?ticket=wrong"])
async def test_no_ticket_no_websocket(certificate, ticket):
    async with running(certificate) as (_, service):
        await service.login()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await service.http.ws_connect(f"{service.url}/api{ticket}")
    assert refused.value.status == 401


async def test_ticket_opens_one_websocket(certificate):
    async with running(certificate) as (_, service):
        await service.login()
        url = f"{service.url}/api?ticket={await service.ticket()}"
        await service.http.ws_connect(url)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await service.http.ws_connect(url)
    assert refused.value.status == 401


async def test_ticket_does_not_outlive_its_time_or_session(certificate):
    async with running(certificate, ticket_seconds=0.05) as (_, service):
        await service.login()
        late = f"{service.url}/api?ticket={await service.ticket()}"
        await asyncio.sleep(0.06)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await service.http.ws_connect(late)
    async with running(certificate) as (_, service):
        await service.login()
        late = f"{service.url}/api?ticket={await service.ticket()}"
        await service.post("/logout")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await service.http.ws_connect(late)


async def test_websockets_of_a_user_are_limited(certificate):
    async with running(certificate, websockets_per_user=2) as (_, service):
        kept = [await service.socket(), await service.socket()]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await service.socket()
        assert refused.value.status == 429
        kept.append(await service.socket("luis"))
        await kept[0].socket.close()
        await until(lambda: len(service.service.hub.clients) == 2)
        kept.append(await service.socket())


async def test_expired_session_ends_the_websocket(certificate):
    async with running(certificate, session_seconds=1) as (_, service):
        client = await service.socket()
        assert await client.end() == (4001, "the session has ended")
        assert (await service.post("/ticket"))[0] == 401


async def test_logout_ends_the_websocket(certificate):
    async with running(certificate) as (_, service):
        client = await service.socket()
        await client.read()
        assert (await service.post("/logout"))[0] == 200
        assert await client.end() == (4001, "the session has ended")
        assert (await service.post("/ticket"))[0] == 401


async def test_page_of_another_origin_is_refused(certificate):
    async with running(certificate, origins=["https://panel.example.com"]) as (_, service):
        body = {"user": "ana", "password": "right"}
        assert (await service.post("/login", body, Origin="https://evil.example.com"))[0] == 403
        assert (await service.post("/login", body, Origin="null"))[0] == 403
        assert (await service.post("/login", body, Origin=service.url))[0] == 200
        assert (await service.post("/login", body, Origin="https://panel.example.com"))[0] == 200
        url = f"{service.url}/api?ticket={await service.ticket()}"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await service.http.ws_connect(url, origin="https://evil.example.com")
        assert refused.value.status == 403
        await service.http.ws_connect(url, origin=service.url)


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (lambda socket: socket.send_str("hello"), 1003),
        (lambda socket: socket.send_bytes(os.urandom(64)), 1003),
        (lambda socket: socket.send_str("x" * 5000), 1009),
    ],
)
async def test_message_from_a_client_ends_its_connection_alone(certificate, send, code):
    async with running(certificate) as (ami, service):
        talker, reader = await service.socket(), await service.socket()
        await send(talker.socket)
        assert (await talker.end())[0] == code
        ami.event("Hangup")
        assert (await reader.read(2))[1]["event"] == "Hangup"


async def test_garbage_on_a_websocket_ends_its_connection_alone(certificate):
    async with running(certificate) as (ami, service):
        talker, reader = await service.socket(), await service.socket()
        talker.socket._response.connection.transport.write(b"\xff" * 200)
        assert (await talker.end())[0] == 1002
        ami.event("Hangup")
        assert (await reader.read(2))[1]["event"] == "Hangup"


async def test_client_that_does_not_read_is_dropped_with_the_reason(certificate):
    async with running(certificate, backlog_events=50) as (ami, service):
        stuck, reader = await service.socket(), await service.socket()
        await reader.read()
        # The client's side reads nothing more from now on; what the kernel and TLS hold fills first.
        stuck.socket._response.connection.transport.pause_reading()
        sent = 0
        while len(service.service.hub.clients) == 2:
            for _ in range(10):
                ami.event("UserEvent", Body="x" * 50000)
            sent += len(await reader.read(10))
            assert sent < 2000
        ami.event("Last")
        assert (await reader.read())[0]["event"] == "Last"
        stuck.socket._response.connection.transport.resume_reading()
        assert await stuck.end() == (4008, "too slow: 51 messages were waiting")


async def test_client_that_never_reads_again_is_cut_off(certificate, monkeypatch):
    monkeypatch.setattr("apir_py.server.CLOSE_WITHIN", 0.1)
    async with running(certificate, backlog_events=5) as (ami, service):
        stuck = await service.socket()
        (transport,) = (at for at, entry in service.service.door.entries.items() if entry.address is None)
        stuck.socket._response.connection.transport.pause_reading()
        while service.service.hub.clients:
            ami.event("UserEvent", Body="x" * 60000)
            await asyncio.sleep(0.001)
        await until(lambda: transport not in service.service.door.entries)


async def test_connection_without_a_request_is_closed(certificate):
    async with running(certificate, request_seconds=0.2) as (_, service):
        trust = ssl.create_default_context(cafile=certificate[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port, ssl=trust)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: pb")
        assert await reader.read() == b""


async def test_second_request_has_to_be_whole_in_time_too(certificate):
    async with running(certificate, request_seconds=0.3) as (_, service):
        trust = ssl.create_default_context(cafile=certificate[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port, ssl=trust)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: pbx\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
        writer.write(b"GET / HTTP/1.1\r\nHost: ")
        while service.service.door.counted and time.monotonic() - started < 3:
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert 0.25 < time.monotonic() - started < 2
        writer.close()


async def test_request_that_takes_its_time_is_not_cut_off(certificate):
    async with running(certificate, request_seconds=0.3) as (_, service):
        trust = ssl.create_default_context(cafile=certificate[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port, ssl=trust)
        for _ in range(3):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: pbx\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(0.5)
        client = await service.socket()
        await asyncio.sleep(0.5)
        assert (await client.read())[0]["type"] == "hello"
        writer.close()


async def test_connection_without_tls_is_closed(certificate):
    async with running(certificate, request_seconds=0.2) as (_, service):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        assert await reader.read() == b""


async def test_connections_of_one_address_are_limited(certificate):
    async with running(certificate, connections_per_address=3, request_seconds=0.5) as (ami, service):
        client = await service.socket()
        await client.read()
        trust = ssl.create_default_context(cafile=certificate[0])
        opened = await asyncio.gather(
            *[asyncio.open_connection("127.0.0.1", service.port, ssl=trust) for _ in range(20)], return_exceptions=True
        )
        await until(lambda: service.service.door.refused >= 16)
        ami.event("Hangup")
        assert (await client.read())[0]["event"] == "Hangup"
        await asyncio.sleep(0.6)
        assert (await service.get("/healthz"))[0] == 200
        for pair in opened:
            if not isinstance(pair, BaseException):
                pair[1].close()


async def test_connection_over_a_limit_is_closed_before_tls(certificate):
    async with running(certificate, connections=5) as (_, service):
        door = service.service.door
        opened = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(300)]
        await until(lambda: door.refused + door.counted >= 300)
        assert door.counted <= 5
        assert await asyncio.wait_for(opened[-1][0].read(), 1) == b""
        for _, writer in opened:
            writer.close()
        await until(lambda: not door.by_address)
        assert ((await service.get("/healthz"))[0], door.counted) == (200, 1)


async def test_silent_connections_delay_nobody(certificate):
    async with running(certificate, request_seconds=1) as (ami, service):
        client = await service.socket()
        await client.read()
        idle = []
        for _ in range(90):
            plain = sockets.create_connection(("127.0.0.1", service.port))
            idle.append(plain)
            await asyncio.sleep(0)
        started = time.perf_counter()
        ami.event("Hangup")
        await client.read()
        assert time.perf_counter() - started < 1
        assert (await service.get("/healthz"))[0] == 200
        for plain in idle:
            plain.close()


@pytest.mark.parametrize("path", ["/api/x", "/../../etc/passwd", "/%00"])
async def test_other_paths_are_not_found_and_say_so_in_json(certificate, path):
    async with running(certificate) as (_, service), service.http.get(service.url + path) as response:
        assert (response.status, await response.json()) == (404, {"error": "Not Found"})
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


async def test_wrong_method_is_refused(certificate):
    async with running(certificate) as (_, service):
        assert (await service.get("/login"))[0] == 405


async def test_end_of_the_service_is_said(certificate):
    async with running(certificate) as (_, service):
        client = await service.socket()
        await client.read()
        stopping = asyncio.ensure_future(service.service.stop())
        assert await client.end() == (1001, "the service ends")
        await stopping


async def test_renewed_certificate_is_used_for_new_connections(certificate, tmp_path):
    async with running(certificate) as (_, service):
        (tmp_path / "broken.pem").write_text("broken")
        object.__setattr__(service.service.config, "certificate", str(tmp_path / "broken.pem"))
        with pytest.raises(OSError, match="PEM"):
            service.service.load_certificate()
        assert (await service.get("/healthz"))[0] == 200


def test_cheap_hash_is_one():
    from apir_py.passwords import verify

    assert verify("right", cheap_hash("right"))
