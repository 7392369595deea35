"""The listening side of the service: who may keep a connection open, and for how long without a request."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from typing import Callable

from apir_py.access import network_key

BACKLOG = 128
"""Connections that the kernel holds; as many are accepted at once, and use a file each until they are refused."""

LARGEST_HEAD = 1 << 16
"""Bytes that may come before they are a request. aiohttp limits each header, but not how many there are."""


class Door:
    """Counts the connections that have not opened a WebSocket, as a whole and by address, and closes idle ones.

    A connection over a limit is closed before TLS begins, which takes a quarter of a megabyte for each.
    """

    def __init__(
        self,
        handler: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext,
        most: int,
        most_of_address: int,
        request_seconds: float,
    ) -> None:
        """`handler` makes the HTTP protocol of a connection. A request has to be whole in `request_seconds`."""
        self.handler, self.tls, self.request_seconds = handler, tls, request_seconds
        self.most, self.most_of_address = most, most_of_address
        self.entries: dict[asyncio.BaseTransport, Entry] = {}
        self.by_address: Counter[str] = Counter()
        self.counted = self.refused = 0

    async def listen(self, address: str, port: int) -> asyncio.AbstractServer:
        """Listen (OSError)."""
        return await asyncio.get_running_loop().create_server(lambda: Entry(self), address, port, backlog=BACKLOG)

    def admit(self, address: str) -> bool:
        """Whether one more connection from an address may stay; it is counted then."""
        if self.counted >= self.most or self.by_address[address] >= self.most_of_address:
            self.refused += 1
            return False
        self.counted += 1
        self.by_address[address] += 1
        return True

    def release(self, address: str) -> None:
        """Count a connection no more."""
        self.counted -= 1
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]


class Entry(asyncio.Protocol):
    """One connection: TLS is put on it, if it may stay, and then all that happens is passed on to HTTP."""

    def __init__(self, door: Door) -> None:
        """See the class."""
        self.door = door
        self.inner: asyncio.Protocol | None = None
        self.address: str | None = None
        self.early: list[bytes] = []
        self.unserved = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A TCP connection has come: let it in, or close it at once."""
        assert isinstance(transport, asyncio.Transport)
        self.tcp = transport
        address = network_key((transport.get_extra_info("peername") or [""])[0])
        if not self.door.admit(address):
            transport.abort()
            return
        self.address = address
        self.hurry()
        self.handshake = asyncio.get_running_loop().create_task(self._start_tls())

    async def _start_tls(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(self.tcp, self, self.door.tls, server_side=True)
        except OSError:  # which ssl.SSLError is, too
            transport = None
        if transport is None or self.lost:
            self.connection_lost(None)
            return
        self.transport = transport
        self.door.entries[transport] = self
        self.inner = self.door.handler()
        self.inner.connection_made(transport)
        for data in self.early:
            self.inner.data_received(data)

    def hurry(self) -> None:
        """Give the connection its time for a whole request."""
        self.timer = asyncio.get_running_loop().call_later(self.door.request_seconds, self.cut)

    def served(self) -> None:
        """A whole request has come."""
        self.timer.cancel()
        self.unserved = 0

    def leave(self) -> None:
        """Count it no more: it is a WebSocket of somebody who has logged in, or ended."""
        if self.address is not None:
            self.timer.cancel()
            self.door.release(self.address)
            self.address = None

    def cut(self) -> None:
        """End the connection, whatever is left to be sent.

        abort() of the TLS transport would do nothing once close() was called twice, as aiohttp does (Python 3.11).
        """
        self.tcp.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.lost = True
        self.leave()
        if self.inner:
            del self.door.entries[self.transport]
            self.inner.connection_lost(exc)
            self.inner = None

    def data_received(self, data: bytes) -> None:
        """Pass on; the first request may come before the end of the handshake has been noticed here."""
        if self.address is not None and self.timer.cancelled():  # another request begins
            self.hurry()
        self.unserved += len(data)
        if self.unserved > LARGEST_HEAD and self.address is not None:
            self.cut()
        elif self.inner:
            self.inner.data_received(data)
        else:
            self.early.append(data)

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
