"""Who may come in: sessions, tickets that open one WebSocket, and a limit on failed logins. All in memory."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Callable, Generic, Iterator, TypeVar

Value = TypeVar("Value")


class Tokens(Generic[Value]):
    """Random tokens, each with a value, that end after `lifetime` seconds. The oldest gives way beyond `most`."""

    def __init__(self, lifetime: float, most: int) -> None:
        """See the class."""
        self.lifetime, self.most = lifetime, most
        self._kept: dict[str, tuple[float, Value]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._kept)

    def issue(self, value: Value) -> str:
        """A new token."""
        now = time.monotonic()
        while self._kept:  # in the order in which they end, since all live equally long
            oldest = next(iter(self._kept))
            if self._kept[oldest][0] > now and len(self._kept) < self.most:
                break
            del self._kept[oldest]
        token = secrets.token_urlsafe(32)
        self._kept[token] = (now + self.lifetime, value)
        return token

    def find(self, token: str) -> Value | None:
        """The token's value, while it lasts."""
        ends, value = self._kept.get(token, (0.0, None))
        return value if ends > time.monotonic() else None

    def take(self, token: str) -> Value | None:
        """The token's value, once."""
        value = self.find(token)
        self._kept.pop(token, None)
        return value


@dataclass(eq=False)
class Session:
    """A user who has logged in. `ends` is in seconds of time.monotonic(); `on_end` are called by a logout."""

    user: str
    ends: float
    on_end: list[Callable[[], None]] = field(default_factory=list)

    def end(self) -> None:
        """Close what the session has opened."""
        self.ends = 0
        for close in list(self.on_end):
            close()

    @contextlib.contextmanager
    def until_end(self, close: Callable[[], None]) -> Iterator[None]:
        """Have `close` called if the session ends within, by a logout or because its time is over."""
        timer = asyncio.get_running_loop().call_later(self.ends - time.monotonic(), close)
        self.on_end.append(close)
        try:
            yield
        finally:
            timer.cancel()
            self.on_end.remove(close)


class Limit:
    """At most `most` attempts of one key within `seconds` that have not succeeded, those under way among them."""

    KEYS = 10_000
    """Keys that are remembered; the oldest is forgotten first."""

    def __init__(self, most: int, seconds: float) -> None:
        """See the class."""
        self.most, self.seconds = most, seconds
        self._attempts: dict[str, deque[float]] = {}

    def wait(self, key: str) -> float:
        """Seconds until the key may try again, 0 if it may now."""
        attempts = self._attempts.get(key)
        if not attempts or len(attempts) < self.most:
            return 0
        return max(0, attempts[0] + self.seconds - time.monotonic())

    def begin(self, key: str) -> None:
        """Note an attempt."""
        attempts = self._attempts.pop(key, None) or deque(maxlen=self.most)
        attempts.append(time.monotonic())
        self._attempts[key] = attempts
        if len(self._attempts) > self.KEYS:
            del self._attempts[next(iter(self._attempts))]

    def succeed(self, key: str) -> None:
        """Take an attempt back."""
        if self._attempts.get(key):
            self._attempts[key].pop()


def network_key(address: str) -> str:
    """What counts as one place: an IPv4 address, or the /64 of an IPv6 address, of which everybody has many."""
    try:
        ip = plain(address)
    except ValueError:
        return address
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))


def plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address without a zone; one of IPv4 that came over an IPv6 socket as what it is (ValueError)."""
    ip = ipaddress.ip_address(address.split("%")[0])
    return (ip.ipv4_mapped or ip) if ip.version == 6 else ip
