"""Events and state on their way to WebSockets.

Nobody is waited for: each client has a backlog, and one that is full ends. A change of state waits a moment for more of
the same item, so that a burst of events costs one message.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from apir_py.event import SCHEMA, Event, Filter, as_json, as_object, exchange_object, now
from apir_py.items import TOPICS, Change, Item, may_see
from apir_py.state import Model

if TYPE_CHECKING:
    from aiohttp import web

SESSION_ENDED, SLOW = 4001, 4008
"""Close codes of the service's own; the README lists all."""

LARGEST_FRAME = 1 << 16
"""Bytes, about, that one WebSocket message holds."""
PAUSE = 0.01
"""Seconds between two messages to a client: what comes meanwhile shares the next one, which spares most of the work."""

SOON, SPACING = 0.02, 0.05
"""Seconds from an event to the change of state that it makes, and between two such changes."""
MESSAGES = ("events", "state", "both")
"""What a client may ask for."""

log = logging.getLogger(__name__)


class Client:
    """A WebSocket with its backlog. `ended` gets a close code and a reason once the service wants it to end."""

    def __init__(self, user: str, sees: Filter, most_events: int, most_bytes: int, messages: str = "events") -> None:
        """`sees` are the events that its user may see; `messages` is one of MESSAGES."""
        self.user, self.sees = user, sees
        self.events, self.state = messages != "state", messages != "events"
        self._shown: set[tuple[str, str]] = set()
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

    def put_snapshot(self, topic: str, items: list[Item]) -> None:
        """Add all items of a topic that the user may see: they replace what the client knows of it."""
        items = [item for item in items if may_see(self.sees, topic, item)]
        self._shown = {key for key in self._shown if key[0] != topic} | {(topic, item["id"]) for item in items}
        self.put(as_json({"v": SCHEMA, "type": "snapshot", "at": now(), "topic": topic, "items": items}))

    def put_change(self, change: Change, line: str) -> None:
        """Add a change, whose line of JSON this is, if the user may see it; one that he no longer may see is gone."""
        key = (change.topic, change.id)
        if change.item and may_see(self.sees, change.topic, change.item):
            self._shown.add(key)
            self.put(line)
        elif key in self._shown:
            self._shown.discard(key)
            self.put(change_line(Change(change.topic, change.id, None)))

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


def change_line(change: Change) -> str:
    """A change as clients get it."""
    head = {"v": SCHEMA, "type": "change" if change.item else "gone", "at": now(), "topic": change.topic}
    return as_json({**head, "item": change.item} if change.item else {**head, "id": change.id})


class Hub:
    """Passes each event, each change of state and of the exchange, to every client that wants it and may see it."""

    def __init__(self, model: Model) -> None:
        """Nobody is there yet, and nothing is known of the exchange."""
        self.clients: set[Client] = set()
        self.model = model
        model.changed = self._schedule
        self.connected = self.known = False
        self.reason = "not connected yet"
        self.events = self.losses = 0
        self._timer: asyncio.TimerHandle | None = None
        self._flushed = 0.0

    def add(self, client: Client) -> None:
        """Greet a client; from now on it gets what comes."""
        hello = {"v": SCHEMA, "type": "hello", "at": now(), "user": client.user}
        client.put(as_json({**hello, "state": "connected" if self.connected else "lost", "reason": self.reason}))
        if client.state and self.known:
            for topic in TOPICS:
                client.put_snapshot(topic, self.model.items(topic))
        self.clients.add(client)

    def remove(self, client: Client) -> None:
        """Forget a client."""
        self.clients.discard(client)

    def publish(self, event: Event) -> None:
        """An event has come."""
        self.events += 1
        line = None
        for client in self.clients:
            if client.events and client.sees(event):
                line = line or as_json(as_object(event))
                client.put(line)
        self.model.apply(event)

    def exchange_is(self, connected: bool, reason: str) -> None:
        """The exchange was regained or lost, or an attempt to reach it failed. What was known of it stays."""
        self.losses += self.connected and not connected
        changed, self.connected, self.reason = self.connected != connected, connected, reason
        if not connected:
            self.model.ready = False
        if changed:
            line = as_json(exchange_object("connected" if connected else "lost", reason))
            for client in self.clients:
                client.put(line)

    def refresh(self) -> None:
        """Everything is known anew: whoever wants state gets all of it."""
        self.model.flush()
        self.known = True
        for client in self.clients:
            if client.state:
                for topic in TOPICS:
                    client.put_snapshot(topic, self.model.items(topic))

    def _schedule(self) -> None:
        if not self._timer and self.model.ready:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time() + SOON, self._flushed + SPACING), self._flush)

    def _flush(self) -> None:
        self._timer, self._flushed = None, asyncio.get_running_loop().time()
        if not self.model.ready:
            return
        changes = self.model.flush()
        wanting = [client for client in self.clients if client.state]
        if not wanting:
            return
        for change in changes:
            line = change_line(change)
            for client in wanting:
                client.put_change(change, line)
