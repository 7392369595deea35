"""The listening side of the service: who may keep a connection open, and for how long without a request."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Callable

from apir_py.access import network_key


class Door:
    """Counts the connections that have not opened a WebSocket, as a whole and by address, and closes idle ones."""

    def __init__(
        self, handler: Callable[[], asyncio.Protocol], most: int, most_of_address: int, request_seconds: float
    ) -> None:
        """`handler` makes the HTTP protocol of a connection. Its first request has to be whole in `request_seconds`."""
        self.handler, self.request_seconds = handler, request_seconds
        self.most, self.most_of_address = most, most_of_address
        self.entries: dict[asyncio.BaseTransport, Entry] = {}
        self.by_address: Counter[str] = Counter()
        self.refused = 0

    def __call__(self) -> Entry:
        """The protocol of a new connection."""
        return Entry(self)

    def admit(self, address: str) -> bool:
        """Whether one more connection from an address may stay; it is counted then."""
        if sum(self.by_address.values()) >= self.most or self.by_address[address] >= self.most_of_address:
            self.refused += 1
            return False
        self.by_address[address] += 1
        return True

    def release(self, address: str) -> None:
        """Count a connection no more."""
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]

    def served(self, transport: asyncio.BaseTransport | None) -> None:
        """A whole request has come."""
        entry = self.entries.get(transport) if transport else None
        if entry:
            entry.timer.cancel()

    def opened(self, transport: asyncio.BaseTransport | None) -> None:
        """The connection has become a WebSocket, of somebody who has logged in."""
        entry = self.entries.get(transport) if transport else None
        if entry:
            entry.leave()


class Entry(asyncio.Protocol):
    """One connection: all that happens is passed on to the HTTP protocol, if it may stay."""

    def __init__(self, door: Door) -> None:
        """See the class."""
        self.door = door
        self.inner: asyncio.Protocol | None = None
        self.address: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or close it at once."""
        address = network_key((transport.get_extra_info("peername") or [""])[0])
        if not self.door.admit(address):
            transport.abort()  # type: ignore[attr-defined]
            return
        self.address = address
        self.timer = asyncio.get_running_loop().call_later(
            self.door.request_seconds,
            transport.abort,  # type: ignore[attr-defined]
        )
        self.door.entries[transport] = self
        self.transport = transport
        self.inner = self.door.handler()
        self.inner.connection_made(transport)

    def leave(self) -> None:
        """Count it no more."""
        if self.address is not None:
            self.door.release(self.address)
            self.address = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self.inner:
            self.leave()
            self.timer.cancel()
            del self.door.entries[self.transport]
            self.inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        if self.inner:
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on."""
        return self.inner.eof_received() if self.inner else None

    def pause_writing(self) -> None:
        """Pass on."""
        if self.inner:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        if self.inner:
            self.inner.resume_writing()
