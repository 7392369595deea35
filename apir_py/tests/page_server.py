"""A stand-in for the service that serves the page and speaks its protocol, with content that a test decides.

`python apir_py/tests/page_server.py` serves the example content on http://127.0.0.1:8890, user ana, password right.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

WEB = Path(__file__).resolve().parents[1] / "src" / "apir_py" / "web"
COOKIE = "session"
TOPICS = ("calls", "phones", "queues", "agents", "conferences", "voicemail")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; media-src 'self' blob:; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self)",
    "Cache-Control": "no-cache",
}


def ago(seconds: float) -> str:
    """The moment so many seconds ago, as the service writes it."""
    moment = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def person(number: str, name: str = "") -> dict[str, str]:
    """Somebody with a number."""
    return {"number": number, "name": name}


PAQUITO = person("6001", "Paquito Txokolatero")
JOSE = person("6002", "Jose Ortega y Gasset")
MANUELA = person("6003", "Manuela Carmena Vuelve")


def call(identity: str, caller: dict, callee: dict, began: float, **fields: Any) -> dict[str, Any]:
    """A call that began so many seconds ago."""
    return {
        "id": identity,
        "began": ago(began),
        "answered": None,
        "state": "ringing",
        "caller": caller,
        "callee": callee,
        "answered_by": None,
        "queue": None,
        "conference": None,
        "channels": [],
        **fields,
    }


def phone(who: dict, state: str = "idle", since: float = 600, host: int = 0, **fields: Any) -> dict[str, Any]:
    """A phone; without `host`, the last part of its address, it is not registered."""
    contact = {"address": f"192.0.2.{host}:5060", "transport": "udp", "latency_ms": 4.2, "user_agent": "Yealink T46U"}
    return {
        "id": who["number"],
        "name": who["name"],
        "registered": bool(host),
        "state": state if host else "offline",
        "contacts": [contact] if host else [],
        "codec": None,
        "call": None,
        "webrtc": False,
        "since": ago(since),
        **fields,
    }


def waiting(position: int, who: dict, since: float) -> dict[str, Any]:
    """A caller in a queue."""
    return {"position": position, **who, "since": ago(since), "call": f"waiting-{who['number']}-{position}"}


def member(who: dict, state: str, since: float = 300, **fields: Any) -> dict[str, Any]:
    """A member of a queue."""
    return {
        **who,
        "state": state,
        "paused": state == "paused",
        "reason": "",
        "paused_since": ago(since) if state == "paused" else None,
        "since": ago(since),
        "caller": None,
        "last_call": None,
        "calls": 0,
        **fields,
    }


def queue(identity: str, number: str, callers: list, members: list, **fields: Any) -> dict[str, Any]:
    """A queue."""
    return {
        "id": identity,
        "number": number,
        "waiting": callers,
        "members": members,
        "answered": 0,
        "abandoned": 0,
        "longest_wait_since": min((caller["since"] for caller in callers), default=None),
        **fields,
    }


def example() -> dict[str, list[dict[str, Any]]]:
    """An ordinary moment of a small exchange."""
    ana, luis, eva = (person("612555014", "Ana Ruiz"), person("934555120"), person("915550188", "Eva Núñez"))
    return {
        "calls": [
            call("c1", PAQUITO, JOSE, 95, answered=ago(88), state="talking", answered_by=JOSE),
            call(
                "c2",
                eva,
                person("8001", "ColaUno"),
                214,
                answered=ago(61),
                state="talking",
                answered_by=MANUELA,
                queue="ColaUno",
            ),
            call("c3", ana, person("8001", "ColaUno"), 151, state="waiting", queue="ColaUno"),
            call("c4", luis, person("8001", "ColaUno"), 37, state="waiting", queue="ColaUno"),
            call("c5", person("6005", "Recepción"), person("6004", "Almacén"), 6),
            call(
                "c6",
                person("6006", "Taller"),
                person("6000", "Conferencia"),
                1260,
                answered=ago(1259),
                state="conference",
                conference="6000",
            ),
            call(
                "c7", person("6007", "Dirección"), person("6500", "Buzón de voz"), 21, answered=ago(20), state="service"
            ),
        ],
        "phones": [
            phone(PAQUITO, "talking", 95, 11, call="c1", codec="alaw"),
            phone(JOSE, "talking", 88, 12, call="c1", codec="alaw"),
            phone(
                MANUELA,
                "talking",
                61,
                77,
                call="c2",
                codec="opus",
                webrtc=True,
                contacts=[
                    {"address": "192.0.2.77:51514", "transport": "wss", "latency_ms": 186, "user_agent": "JsSIP 3.13.8"}
                ],
            ),
            phone(person("6004", "Almacén"), "ringing", 6, 14, call="c5"),
            phone(person("6005", "Recepción"), "ringing", 6, 15, call="c5"),
            phone(person("6006", "Taller"), "talking", 1260, 16, call="c6", codec="ulaw"),
            phone(person("6007", "Dirección"), "talking", 21, 17, call="c7", codec="g722"),
            phone(person("6008", "Sala de juntas"), since=86000),
        ],
        "queues": [
            queue(
                "ColaUno",
                "8001",
                [waiting(1, ana, 151), waiting(2, luis, 37)],
                [
                    member(PAQUITO, "talking", 95, caller=JOSE, calls=14, last_call=ago(700)),
                    member(JOSE, "paused", 900, reason="Comida", calls=9, last_call=ago(2400)),
                    member(MANUELA, "talking", 61, caller=eva, calls=17, last_call=ago(310)),
                ],
                answered=40,
                abandoned=3,
            ),
            queue("Soporte", "8002", [], [member(person("6006", "Taller"), "idle", 5400, calls=2)], answered=2),
        ],
        "agents": [
            {
                "id": "6001",
                "name": PAQUITO["name"],
                "state": "talking",
                "since": ago(95),
                "caller": JOSE,
                "queues": ["ColaUno"],
            },
            {
                "id": "6002",
                "name": JOSE["name"],
                "state": "idle",
                "since": ago(900),
                "caller": None,
                "queues": ["ColaUno"],
            },
            {
                "id": "6003",
                "name": MANUELA["name"],
                "state": "talking",
                "since": ago(61),
                "caller": eva,
                "queues": ["ColaUno"],
            },
            {
                "id": "6006",
                "name": "Taller",
                "state": "logged_off",
                "since": ago(5400),
                "caller": None,
                "queues": ["Soporte"],
            },
        ],
        "conferences": [
            {
                "id": "6000",
                "since": ago(1260),
                "participants": [
                    {**person("6006", "Taller"), "since": ago(1260), "muted": False, "talking": True},
                    {**person("934555177", "Proveedor"), "since": ago(1100), "muted": False, "talking": False},
                    {**person("6009", "Contabilidad"), "since": ago(480), "muted": True, "talking": False},
                ],
            }
        ],
        "voicemail": [
            {"id": "6001", "name": PAQUITO["name"], "new": 2, "old": 5},
            {"id": "6002", "name": JOSE["name"], "new": 0, "old": 1},
            {"id": "6003", "name": MANUELA["name"], "new": 1, "old": 0},
        ],
    }


def record(
    number: int, at: float, caller: dict, callee: dict, seconds: int, result: str, **fields: Any
) -> dict[str, Any]:
    """A call record."""
    return {
        "id": str(number),
        "at": ago(at),
        "caller": caller,
        "callee": callee,
        "seconds": seconds,
        "talk_seconds": seconds - 8 if result == "ANSWERED" else 0,
        "disposition": result,
        "queue": None,
        "uniqueid": f"1764150000.{number}",
        "channel": f"PJSIP/{caller['number']}-{number:08x}",
        **fields,
    }


def example_records() -> list[dict[str, Any]]:
    """70 call records, newest first."""
    kinds = [
        (PAQUITO, JOSE, 95, "ANSWERED", None),
        (person("612555014", "Ana Ruiz"), person("8001", "ColaUno"), 260, "ANSWERED", "ColaUno"),
        (MANUELA, person("6001", PAQUITO["name"]), 31, "NO ANSWER", None),
        (person("934555120"), person("6003", MANUELA["name"]), 12, "BUSY", None),
        (JOSE, person("11888"), 44, "ANSWERED", None),
    ]
    found = []
    for number in range(70, 0, -1):
        caller, callee, seconds, result, queued = kinds[number % len(kinds)]
        found.append(record(number, 300 + (70 - number) * 1900, caller, callee, seconds, result, queue=queued))
    return found


class PageServer:
    """Runs in a thread of its own between `start` and `stop`; every method may be called from the test's thread."""

    def __init__(self, phone_tab: bool = False, records: bool = True) -> None:
        """`session` is what /session adds to user and seconds."""
        self.session = {"records": records, "phone": phone_tab, "language": "es"}
        self.records = example_records()
        self.reset()

    def reset(self) -> None:
        """The example again, no session, the exchange connected, nothing refused."""
        self.content = example()
        self.sessions: dict[str, str] = {}
        self.tickets: dict[str, str] = {}
        self.sockets: set[web.WebSocketResponse] = set()
        self.exchange = ("connected", "Asterisk Call Manager/7.0.3")
        self.login_answer: tuple[int, dict[str, str]] | None = None
        self.down = self.overloaded = False
        self.refused_tickets = 0
        self.asked: list[dict[str, str]] = []

    def start(self, port: int = 0) -> str:
        """Listen; gives the URL."""
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self._call(self._start(port))

    def stop(self) -> None:
        """End everything."""
        self._call(self.runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    def enter(self, user: str) -> str:
        """Begin a session; gives the cookie's value."""
        token = secrets.token_hex()
        self.sessions[token] = user
        return token

    def snapshot(self, topic: str, items: list[dict[str, Any]]) -> None:
        """Replace a topic's content."""
        self.content[topic] = items
        self.send({"type": "snapshot", "topic": topic, "items": items})

    def change(self, topic: str, item: dict[str, Any]) -> None:
        """A new or changed item."""
        items = self.content[topic]
        self.content[topic] = [*(other for other in items if other["id"] != item["id"]), item]
        self.send({"type": "change", "topic": topic, "item": item})

    def gone(self, topic: str, identity: str) -> None:
        """An item is no more."""
        self.content[topic] = [item for item in self.content[topic] if item["id"] != identity]
        self.send({"type": "gone", "topic": topic, "id": identity})

    def exchange_is(self, state: str, reason: str) -> None:
        """The exchange is lost, or connected again."""
        self.exchange = (state, reason)
        self.send({"type": "exchange", "state": state, "reason": reason})
        if state == "connected":
            for topic in TOPICS:
                self.snapshot(topic, self.content[topic])

    def send(self, *objects: dict[str, Any]) -> None:
        """Send lines to every WebSocket."""
        lines = "\n".join(json.dumps({"v": 1, "at": ago(0), **found}) for found in objects)
        self._call(self._send(lines))

    def close(self, code: int) -> None:
        """Close every WebSocket."""
        self._call(self._close(code))

    def go_down(self, down: bool = True) -> None:
        """Answer nothing any more and cut what is open; or be there again."""
        self.down = down
        if down:
            self._call(self._close(WSCloseCode.GOING_AWAY))

    def end_sessions(self) -> None:
        """All sessions expire."""
        self.sessions.clear()
        self._call(self._close(4001))

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _start(self, port: int) -> str:
        app = web.Application(middlewares=[self._answer])
        app.add_routes(
            [
                web.post("/login", self._login),
                web.get("/session", self._session),
                web.post("/logout", self._logout),
                web.post("/ticket", self._ticket),
                web.get("/api", self._api),
                web.get("/records", self._records),
                web.get("/records.csv", self._csv),
                web.get("/", self._index),
                web.static("/", WEB),
            ]
        )
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", port)
        await site.start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/"

    async def _send(self, lines: str) -> None:
        for socket in set(self.sockets):
            await socket.send_str(lines)

    async def _close(self, code: int) -> None:
        for socket in set(self.sockets):
            await socket.close(code=code)

    @web.middleware
    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.down:
            assert request.transport
            request.transport.abort()
            return web.Response()
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = web.json_response({"error": error.reason}, status=error.status)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def _user(self, request: web.Request) -> str:
        user = self.sessions.get(request.cookies.get(COOKIE, ""))
        if not user:
            raise web.HTTPUnauthorized(reason="not logged in")
        return user

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(WEB / "index.html")

    async def _login(self, request: web.Request) -> web.Response:
        if self.login_answer:
            status, headers = self.login_answer
            return web.json_response({"error": "no"}, status=status, headers=headers)
        body = await request.json()
        if body.get("password") != "right":
            return web.json_response({"error": "user or password is wrong"}, status=401)
        token = self.enter(body["user"])
        response = web.json_response({"user": body["user"], "seconds": 3600})
        response.set_cookie(COOKIE, token, path="/", httponly=True, samesite="Strict")
        return response

    async def _session(self, request: web.Request) -> web.Response:
        return web.json_response({"user": self._user(request), "seconds": 3600, **self.session})

    async def _logout(self, request: web.Request) -> web.Response:
        self.sessions.pop(request.cookies.get(COOKIE, ""), None)
        return web.json_response({})

    async def _ticket(self, request: web.Request) -> web.Response:
        if self.overloaded:
            self.refused_tickets += 1
            raise web.HTTPServiceUnavailable(reason="too many connections")
        ticket = secrets.token_hex()
        self.tickets[ticket] = self._user(request)
        return web.json_response({"ticket": ticket, "seconds": 30})

    async def _api(self, request: web.Request) -> web.StreamResponse:
        user = self.tickets.pop(request.query.get("ticket", ""), None)
        if not user:
            raise web.HTTPUnauthorized(reason="the ticket is wrong, used or too old")
        assert request.query["messages"] == "state"
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        state, reason = self.exchange
        lines = [{"type": "hello", "user": user, "state": state, "reason": reason}]
        if state == "connected":
            lines += [{"type": "snapshot", "topic": topic, "items": self._seen(user, topic)} for topic in TOPICS]
        await socket.send_str("\n".join(json.dumps({"v": 1, "at": ago(0), **line}) for line in lines))
        self.sockets.add(socket)
        async for message in socket:
            assert message.type != WSMsgType.TEXT, "the page has nothing to say"
        self.sockets.discard(socket)
        return socket

    def _seen(self, user: str, topic: str) -> list[dict[str, Any]]:
        """User luis sees the queue Soporte alone."""
        items = self.content[topic]
        return items if user != "luis" else [item for item in items if item["id"] == "Soporte"]

    async def _records(self, request: web.Request) -> web.Response:
        self._user(request)
        query = request.query
        self.asked.append(dict(query))
        if not re.fullmatch(r"[0-9*#+]{0,32}", query.get("number", "")):
            raise web.HTTPBadRequest(reason="number should be up to 32 of 0 to 9, *, # and +")
        found = self._found(query)
        page, size = int(query.get("page", "1")), 50
        shown = found[(page - 1) * size : page * size]
        return web.json_response({"records": shown, "page": page, "size": size, "more": len(found) > page * size})

    def _found(self, query: Any) -> list[dict[str, Any]]:
        number, begin, end = query.get("number", ""), query.get("from", ""), query.get("to", "~")
        return [
            found
            for found in self.records
            if any(number in found[side]["number"] for side in ("caller", "callee")) and begin <= found["at"] <= end
        ]

    async def _csv(self, request: web.Request) -> web.Response:
        self._user(request)
        rows = [f"{found['at']},{found['caller']['number']}" for found in self._found(request.query)]
        return web.Response(text="\r\n".join(["at,caller", *rows, ""]), content_type="text/csv")


if __name__ == "__main__":
    print(PageServer().start(8890), flush=True)
    threading.Event().wait()
