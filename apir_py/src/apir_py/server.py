"""The service: HTTP and WebSockets over TLS, from a configuration file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Awaitable, Callable

from aiohttp import WSCloseCode, WSMsgType, web

from apir_py.access import Limit, Session, Tokens, network_key, plain
from apir_py.ami import AmiError, Exchange
from apir_py.config import Config
from apir_py.door import Door, Entry
from apir_py.event import printable
from apir_py.files import file_routes
from apir_py.hub import MESSAGES, SESSION_ENDED, Client, Hub
from apir_py.metrics import Metric, certificate_ends, of_certificate, of_copies, of_records, of_state, written
from apir_py.passwords import NOBODY, verify
from apir_py.sip_proxy import HEARTBEAT, LARGEST_MESSAGE, PROTOCOL, Phone, SipProxy
from apir_py.state import Model
from apir_py.today import Today
from apir_py.watch import Watch

if TYPE_CHECKING:
    from apir_py.records import Records

COOKIE = "__Host-session"
WEB = Path(__file__).parent / "web"
"""The page's files."""
LARGEST_REQUEST = 4096
"""Bytes of a body, and of a WebSocket message from a client."""
LOGINS_AT_ONCE = 8
"""Logins whose password is being checked or waits for it; the next one is refused for the moment."""
KEEP_EVERY = 10
"""Seconds between two times that the counts of today are kept."""
CLOSE_WITHIN = 5
"""Seconds in which a client has to answer the end of its WebSocket."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """Everything that runs. `start` listens, `run` follows the exchange until cancelled, `stop` ends the rest."""

    def __init__(self, config: Config) -> None:
        """Nothing is opened yet."""
        self.config = config
        self.today = Today(config.state_directory, config.queues)
        self.hub = Hub(Model(config, self.today))
        self.watch = Watch(self.hub.model)
        self.watching: asyncio.Task[None] | None = None
        self.sip = SipProxy(config.phone)
        self.calls = open_records(config)
        self.exchange = Exchange(config.exchange, self.hub.publish, self.connected, self.lost)
        self.sessions: Tokens[Session] = Tokens(config.session_seconds, 1000)
        self.tickets: Tokens[Session] = Tokens(config.ticket_seconds, 1000)
        self.limit = Limit(config.login_failures, config.login_seconds)
        self.logins = {"accepted": 0, "refused": 0, "limited": 0}
        self.ends: dict[str, int] = {}
        self.checking = 0
        self.thread = ThreadPoolExecutor(1, "password")
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.servers: list[asyncio.AbstractServer] = []

    def load_certificate(self) -> None:
        """Read key and certificate; connections from now on get it (OSError, which ssl.SSLError is, too)."""
        self.tls.load_cert_chain(self.config.certificate, self.config.key)
        try:
            self.certificate_ends: float | None = certificate_ends(self.config.certificate)
        except ValueError as error:  # a form that OpenSSL alone knows
            self.certificate_ends = None
            log.warning("%s: %s", self.config.certificate, error)

    async def start(self) -> None:
        """Listen (OSError)."""
        self.load_certificate()
        app = web.Application(client_max_size=LARGEST_REQUEST, middlewares=[self.answer])
        app.add_routes(
            [
                web.get("/api", self.api),
                web.get("/healthz", self.healthz),
                web.get("/metrics", self.metrics),
                web.get("/records", self.records, allow_head=False),
                web.get("/records.csv", self.records, allow_head=False),
                web.get("/session", self.session),
                web.post("/login", self.login),
                web.post("/logout", self.logout),
                web.post("/ticket", self.ticket),
                web.get("/ws", self.ws),
                *file_routes(WEB),
            ]
        )
        app.on_response_prepare.append(put_headers)
        # No access log: it would hold tickets.
        self.runner = web.AppRunner(app, access_log=None, keepalive_timeout=15)
        await self.runner.setup()
        config = self.config
        assert self.runner.server
        self.door = Door(
            self.runner.server, self.tls, config.connections, config.connections_per_address, config.request_seconds
        )
        for address in config.addresses:
            self.servers.append(await self.door.listen(address, config.port))

    async def run(self) -> None:
        """Follow the exchange, however often it goes."""
        keeping = asyncio.ensure_future(self.keep_counts())
        try:
            await self.exchange.run()
        finally:
            keeping.cancel()
            self.stop_watching()

    async def keep_counts(self) -> None:
        """Keep the counts of today, and begin anew at midnight."""
        loop = asyncio.get_running_loop()
        while True:
            for _ in range(KEEP_EVERY):
                await asyncio.sleep(1)
                if self.today.roll():
                    self.hub.model.new_day()
            await loop.run_in_executor(None, self.today.save)

    def stop_watching(self) -> None:
        """Ask the exchange nothing more."""
        if self.watching:
            self.watching.cancel()
            self.watching = None

    async def stop(self) -> None:
        """Close the port and every connection, with a reason for those who listen."""
        for server in self.servers:
            server.close()
        for client in self.websockets():
            client.end(WSCloseCode.GOING_AWAY, "the service ends")
        for _ in range(100):
            if not self.websockets():
                break
            await asyncio.sleep(0.02)
        if self.calls:
            self.calls.close()
        # Nobody who reads slowly holds the end up.
        for entry in list(self.door.entries.values()):
            asyncio.get_running_loop().call_later(CLOSE_WITHIN, entry.cut)
        await self.runner.cleanup()
        await self.sip.close()
        self.thread.shutdown(wait=False)
        self.today.save()

    def connected(self, greeting: str) -> None:
        """The exchange is there."""
        log.info("%s: connected (%s)", self.config.exchange.address, printable(greeting))
        self.hub.exchange_is(True, greeting)
        assert self.exchange.connection
        self.stop_watching()
        self.watching = asyncio.ensure_future(self.watch.run(self.exchange.connection, self.hub.refresh))

    def lost(self, error: AmiError, delay: float) -> None:
        """The exchange is not there."""
        log.warning("%s: %s; next attempt in %g s", self.config.exchange.address, printable(str(error)), delay)
        self.hub.exchange_is(False, str(error))
        self.stop_watching()

    @web.middleware
    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Put errors into JSON."""
        entry = self.entry(request)
        if entry:
            entry.served()
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = refuse(error.status, error.reason)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        return response

    async def login(self, request: web.Request) -> web.Response:
        """`{"user": "…", "password": "…"}` gives a session in a cookie."""
        self.check_origin(request)
        address = network_key(request.remote or "")
        name, password = await self.credentials(request)
        wait = self.limit.wait(address)
        if wait or self.checking >= LOGINS_AT_ONCE:
            self.logins["limited"] += 1
            log.warning("login from %s: too many attempts", request.remote)
            return refuse(429, "too many attempts, try again later", {"Retry-After": str(int(wait) + 1)})
        self.limit.begin(address)
        user = self.config.users.get(name)
        stored = user.password if user else NOBODY
        self.checking += 1
        try:
            right = await asyncio.get_running_loop().run_in_executor(self.thread, verify, password, stored)
        finally:
            self.checking -= 1
        if not (user and right):
            self.logins["refused"] += 1
            log.warning("login of %s from %s: refused", printable(name[:64]), request.remote)
            return refuse(401, "user or password is wrong")
        self.limit.succeed(address)
        self.logins["accepted"] += 1
        log.info("login of %s from %s: accepted", name, request.remote)
        session = Session(name, time.monotonic() + self.config.session_seconds)
        response = web.json_response({"user": name, "seconds": self.config.session_seconds})
        set_cookie(response, self.sessions.issue(session), int(self.config.session_seconds))
        return response

    async def credentials(self, request: web.Request) -> tuple[str, str]:
        """User and password of a login."""
        try:
            body = await asyncio.wait_for(request.json(), self.config.request_seconds)
        except (ValueError, asyncio.TimeoutError, RecursionError):
            body = None
        if isinstance(body, dict):
            user, password = body.get("user"), body.get("password")
            if isinstance(user, str) and isinstance(password, str):
                return user, password
        raise web.HTTPBadRequest(reason='the body should be {"user": "...", "password": "..."}')

    async def session(self, request: web.Request) -> web.Response:
        """Whose session this is, and for how many seconds."""
        session = self.require_session(request)
        return web.json_response(
            {
                "user": session.user,
                "seconds": int(session.ends - time.monotonic()),
                "records": bool(self.calls and self.calls.may_see(self.config.users[session.user].sees)),
                "phone": bool(self.config.phone),
                "language": self.config.language,
            }
        )

    async def logout(self, request: web.Request) -> web.Response:
        """End the session, and the WebSockets that it has opened."""
        self.check_origin(request)
        session = self.sessions.take(request.cookies.get(COOKIE, ""))
        if session:
            session.end()
        response = web.json_response({})
        set_cookie(response, "", 0)
        return response

    async def ticket(self, request: web.Request) -> web.Response:
        """A ticket that opens one WebSocket, soon."""
        self.check_origin(request)
        ticket = self.tickets.issue(self.require_session(request))
        return web.json_response({"ticket": ticket, "seconds": self.config.ticket_seconds})

    async def api(self, request: web.Request) -> web.StreamResponse:
        """The WebSocket: events, as they come, to whoever has a ticket."""
        self.check_origin(request)
        messages = request.query.get("messages", "events")
        if messages not in MESSAGES:
            return refuse(400, f"messages should be one of {', '.join(MESSAGES)}")
        session = self.tickets.take(request.query.get("ticket", ""))
        if not session or session.ends <= time.monotonic():
            return refuse(401, "the ticket is wrong, used or too old")
        self.check_websockets(session)
        socket = web.WebSocketResponse(heartbeat=20, max_msg_size=LARGEST_REQUEST, compress=False, timeout=CLOSE_WITHIN)
        await socket.prepare(request)
        entry = self.entry(request)
        if not entry:  # gone already
            return socket
        entry.leave()
        config = self.config
        sees = config.users[session.user].sees
        client = Client(session.user, sees, config.backlog_events, config.backlog_bytes, messages)
        self.hub.add(client)
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(client.pump(socket)),
            asyncio.ensure_future(self.listen(socket, client)),
        ]
        try:
            with session.until_end(lambda: client.end(SESSION_ENDED, "the session has ended")):
                await asyncio.wait([client.ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.hub.remove(client)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close(socket, client, entry)
        return socket

    async def ws(self, request: web.Request) -> web.StreamResponse:
        """The WebSocket of a phone in the browser: SIP, to and from Asterisk."""
        if "Origin" not in request.headers:  # a cookie without an origin is no browser's
            raise web.HTTPForbidden(reason="the request has no origin")
        self.check_origin(request)
        session = self.require_session(request)
        if not self.config.phone:
            return refuse(404, "this service has no phone")
        offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        if PROTOCOL not in [name.strip() for name in offered]:
            return refuse(400, f"the WebSocket has to offer the protocol {PROTOCOL}")
        self.check_websockets(session)
        socket = web.WebSocketResponse(
            protocols=(PROTOCOL,),
            heartbeat=HEARTBEAT,
            max_msg_size=LARGEST_MESSAGE,
            compress=False,
            timeout=CLOSE_WITHIN,
        )
        await socket.prepare(request)
        entry = self.entry(request)
        if not entry:  # gone already
            return socket
        entry.leave()
        # aiohttp 3.7 cancels this when the browser has gone; what is open to Asterisk still has to be closed.
        await asyncio.shield(self.carry(socket, session, entry))
        return socket

    async def carry(self, socket: web.WebSocketResponse, session: Session, entry: Entry) -> None:
        """Carry SIP to and from a browser until either side, or the session, ends."""
        phone = Phone(session.user)
        with session.until_end(lambda: phone.end(SESSION_ENDED, "the session has ended")):
            phone.end(*await self.sip.carry(socket, phone))
        await self.close(socket, phone, entry)

    @staticmethod
    async def listen(socket: web.WebSocketResponse, client: Client) -> None:
        """Notice the end of a WebSocket. Clients have nothing to say."""
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                client.end(WSCloseCode.UNSUPPORTED_DATA, "this service takes no messages")
                return

    async def close(self, socket: web.WebSocketResponse, client: Client | Phone, entry: Entry) -> None:
        """Close a WebSocket with its reason, whether or not the other side reads."""
        code, reason = client.ended.result() if client.ended.done() else (int(WSCloseCode.OK), "")
        self.ends[str(int(code))] = self.ends.get(str(int(code)), 0) + 1
        if reason:
            log.info("WebSocket of %s: %s", client.user, reason)
        # First, since aiohttp may cancel this while it waits for the other side.
        asyncio.get_running_loop().call_later(2 * CLOSE_WITHIN, entry.cut)
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError, RuntimeError):
            await asyncio.wait_for(socket.close(code=code, message=reason.encode()), 2 * CLOSE_WITHIN)

    async def records(self, request: web.Request) -> web.StreamResponse:
        """Call records, as JSON or CSV, that the user may see."""
        self.check_origin(request)
        sees = self.config.users[self.require_session(request).user].sees
        if not self.calls:
            return refuse(404, "this service has no call records")
        if not self.calls.may_see(sees):
            return refuse(403, "call records are not for this user")
        if request.path.endswith(".csv"):
            return await self.calls.answer_csv(request, sees)
        return await self.calls.answer_page(request, sees)

    async def healthz(self, request: web.Request) -> web.Response:
        """200 while the exchange is connected, otherwise 503."""
        state = "connected" if self.hub.connected else "lost"
        return web.json_response({"exchange": state}, status=200 if self.hub.connected else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus' text form, for the networks that the configuration names."""
        address = plain(request.remote or "::")
        if not any(address in network for network in self.config.metrics_networks):
            raise web.HTTPForbidden(reason="metrics are not for this address")
        hub = self.hub
        metrics = [
            Metric("apir_py_exchange_connected", "gauge", "Whether the exchange is connected", {(): hub.connected}),
            Metric(
                "apir_py_exchange_lost_total", "counter", "Connections to the exchange that ended", {(): hub.losses}
            ),
            Metric("apir_py_events_total", "counter", "Events that the exchange has sent", {(): hub.events}),
            Metric("apir_py_websockets", "gauge", "WebSockets that are open", {(): len(hub.clients)}),
            Metric(
                "apir_py_phone_websockets", "gauge", "WebSockets of phones that are open", {(): len(self.sip.phones)}
            ),
            Metric(
                "apir_py_websockets_closed_total",
                "counter",
                "WebSockets that were closed, by close code; 4008 is a slow client",
                {(("code", code),): count for code, count in sorted(self.ends.items())},
            ),
            Metric(
                "apir_py_logins_total",
                "counter",
                "Logins",
                {(("result", result),): count for result, count in self.logins.items()},
            ),
            Metric("apir_py_connections_refused_total", "counter", "Connections over a limit", {(): self.door.refused}),
            *(of_certificate(self.certificate_ends) if self.certificate_ends else []),
            *(of_state(hub.model) if hub.known else []),
            *(of_records(self.config.records_status) if self.config.records_status else []),
            *(of_copies(self.config.copies_status) if self.config.copies_status else []),
        ]
        return web.Response(text=written(metrics), content_type="text/plain")

    def entry(self, request: web.Request) -> Entry | None:
        """The connection of a request, while it lasts."""
        return self.door.entries.get(request.transport) if request.transport else None

    def require_session(self, request: web.Request) -> Session:
        """The session of the request's cookie."""
        session = self.sessions.find(request.cookies.get(COOKIE, ""))
        if not session:
            raise web.HTTPUnauthorized(reason="not logged in")
        return session

    def websockets(self) -> list[Client | Phone]:
        """Those that are open, of either kind."""
        return [*self.hub.clients, *self.sip.phones]

    def check_websockets(self, session: Session) -> None:
        """Refuse one more WebSocket of a user who has enough."""
        opened = sum(client.user == session.user for client in self.websockets())
        if opened >= self.config.websockets_per_user:
            raise web.HTTPTooManyRequests(reason="this user has too many WebSockets open")

    def check_origin(self, request: web.Request) -> None:
        """Refuse what a page of another origin sends; programs that are no browsers send none."""
        origin = request.headers.get("Origin")
        if origin is not None and origin not in (f"https://{request.host}", *self.config.origins):
            raise web.HTTPForbidden(reason="pages of this origin are not allowed")


async def put_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Put the headers of security on an answer that has none of its own."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def open_records(config: Config) -> Records | None:
    """The call records, if there is a database; only then psycopg2 is needed."""
    if not config.database:
        return None
    from apir_py.records import Records

    return Records(config.database, config.names)


def refuse(status: int, reason: Any, headers: dict[str, str] | None = None) -> web.Response:
    """An error in one sentence."""
    return web.Response(
        status=status, headers=headers, text=json.dumps({"error": str(reason)}), content_type="application/json"
    )


def set_cookie(response: web.Response, token: str, seconds: int) -> None:
    """Give the browser the token of a session, which no script and no other site may use; 0 seconds take it back."""
    response.set_cookie(COOKIE, token, path="/", max_age=seconds, secure=True, httponly=True, samesite="Strict")


async def serve(config: Config) -> None:
    """Run the service until SIGTERM or SIGINT; SIGHUP reads the certificate again (OSError if it cannot start)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    service = Service(config)
    loop = asyncio.get_running_loop()
    await service.start()
    log.info("listening on port %d", config.port)
    task = loop.create_task(service.run())

    def renew() -> None:
        try:
            service.load_certificate()
            log.info("certificate read again")
        except OSError as error:
            log.error("certificate not read again, the old one stays: %s", error)

    loop.add_signal_handler(signal.SIGHUP, renew)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    notify_ready()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await service.stop()


def notify_ready() -> None:
    """Report to systemd, if it waits for that, that the port is open and signals are expected."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(b"READY=1", f"\0{path[1:]}" if path.startswith("@") else path)
