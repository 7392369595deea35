"""Events on their way to WebSockets. Nobody is waited for: each client has a backlog, and one that is full ends."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from apir_py.event import SCHEMA, Event, Filter, as_json, as_object, exchange_object, now

if TYPE_CHECKING:
    from aiohttp import web

SESSION_ENDED, SLOW = 4001, 4008
"""Close codes of the service's own; the README lists all."""

LARGEST_FRAME = 1 << 16
"""Bytes, about, that one WebSocket message holds."""
PAUSE = 0.01
"""Seconds between two messages to a client: what comes meanwhile shares the next one, which spares most of the work."""

log = logging.getLogger(__name__)


class Client:
    """A WebSocket with its backlog. `ended` gets a close code and a reason once the service wants it to end."""

    def __init__(self, user: str, sees: Filter, most_events: int, most_bytes: int) -> None:
        """`sees` are the events that its user may see."""
        self.user, self.sees = user, sees
        self.most_events, self.most_bytes = most_events, most_bytes
        self.ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._backlog: deque[str] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()

    def put(self, line: str) -> None:
        """Add a line of JSON to the backlog."""
        if self.ended.done():
            return
        self._backlog.append(line)
        self._bytes += len(line)
        if len(self._backlog) > self.most_events or self._bytes > self.most_bytes:
            self.end(SLOW, f"too slow: {len(self._backlog)} messages were waiting")
        self._filled.set()

    def end(self, code: int, reason: str) -> None:
        """Ask for the end of the connection; the reason has at most 123 bytes."""
        if not self.ended.done():
            self.ended.set_result((code, reason))
            self._backlog.clear()

    async def pump(self, socket: web.WebSocketResponse) -> None:
        """Send the backlog as it grows, as many lines at once as there are, until cancelled."""
        while True:
            await self._filled.wait()
            lines, size = [], 0
            while self._backlog and size < LARGEST_FRAME:
                lines.append(self._backlog.popleft())
                size += len(lines[-1])
            self._bytes -= size
            if not self._backlog:
                self._filled.clear()
            if lines:
                await socket.send_str("\n".join(lines))
            await asyncio.sleep(0 if self._backlog else PAUSE)


class Hub:
    """Passes each event, and each change of the exchange, to every client that may see it."""

    def __init__(self) -> None:
        """Nobody is there yet."""
        self.clients: set[Client] = set()
        self.connected = False
        self.reason = "not connected yet"
        self.events = self.losses = 0

    def add(self, client: Client) -> None:
        """Greet a client; from now on it gets what comes."""
        hello = {"v": SCHEMA, "type": "hello", "at": now(), "user": client.user}
        client.put(as_json({**hello, "state": "connected" if self.connected else "lost", "reason": self.reason}))
        self.clients.add(client)

    def remove(self, client: Client) -> None:
        """Forget a client."""
        self.clients.discard(client)

    def publish(self, event: Event) -> None:
        """An event has come."""
        self.events += 1
        line = None
        for client in self.clients:
            if client.sees(event):
                line = line or as_json(as_object(event))
                client.put(line)

    def exchange_is(self, connected: bool, reason: str) -> None:
        """The exchange was regained or lost, or an attempt to reach it failed."""
        self.losses += self.connected and not connected
        changed, self.connected, self.reason = self.connected != connected, connected, reason
        if changed:
            line = as_json(exchange_object("connected" if connected else "lost", reason))
            for client in self.clients:
                client.put(line)
