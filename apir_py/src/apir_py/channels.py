"""Channels, and what is made of them: calls, and callers who wait in queues."""

from __future__ import annotations

import re
from datetime import datetime

UP = "6"
# Technologies of channels that are nobody's: ends of a channel between two parts of the exchange, and what only plays.
INNER = ("Local/", "Surrogate/", "AsyncGoto/", "Announcer/", "Recorder/", "CBAnn/", "CBRec/", "Message/", "Snoop/")


class Channel:
    """A channel. `origin` is its first Linkedid, `exten` what it dialled, `dialler` the channel that calls it."""

    __slots__ = (
        *("uid", "name", "origin", "state", "number", "caller_name", "exten", "began", "endpoint", "inner", "pair"),
        *("bridge", "held", "held_at", "dialled", "dialler", "queue", "agent", "conference", "call", "codec", "up"),
    )

    def __init__(self, uid: str, name: str, origin: str, began: datetime) -> None:
        """A channel of which nothing else is known yet."""
        self.uid, self.origin, self.began = uid, origin, began
        self.state = self.number = self.caller_name = self.exten = self.bridge = ""
        self.dialler = self.queue = self.agent = self.conference = self.call = ""
        self.codec: str | None = None
        self.up: datetime | None = None  # since when, if that is known
        self.held = self.dialled = False
        self.held_at = began
        self.rename(name)

    def rename(self, name: str) -> None:
        """Set the name, and what it says."""
        self.name = name
        self.inner = name.startswith(INNER)
        found = re.match(r"PJSIP/(.+)-[0-9a-f]{8}(?:$|<)", name)
        self.endpoint = found[1] if found else ""
        self.pair = name[:-2] if name.startswith("Local/") and name.endswith((";1", ";2")) else ""


class Call:
    """Channels that belong together. `anchor` is the caller's channel."""

    __slots__ = ("id", "channels", "anchor", "began", "answered", "talked", "queue", "touched")

    def __init__(self, id: str, anchor: Channel, touched: datetime) -> None:
        """A call without channels yet."""
        self.id, self.anchor, self.began, self.touched = id, anchor.uid, anchor.began, touched
        self.channels: set[str] = set()
        self.answered: datetime | None = None
        self.talked, self.queue = False, ""


class Waiting:
    """A caller in a queue."""

    __slots__ = ("uid", "number", "name", "since")

    def __init__(self, uid: str, number: str, name: str, since: datetime) -> None:
        """See the class."""
        self.uid, self.number, self.name, self.since = uid, number, name, since


def drop(index: dict[str, set[str]], key: str, uid: str) -> None:
    """Take an entry from an index of sets."""
    found = index.get(key)
    if found:
        found.discard(uid)
        if not found:
            del index[key]
