"""An event of AMI, the filters it passes, and the two forms in which it is written."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Dict, List, Union

SCHEMA = 1
"""Version of the JSON form; it grows when a reader of the one before would be misled."""

Fields = Dict[str, Union[str, List[str]]]
"""Headers of an event by name; a header that comes more than once, such as ChanVariable, is a list."""

# Where events name a channel, and where they name a telephone, by number or inside a name such as PJSIP/6001-00000001.
CHANNEL = re.compile(r"channel(name)?$", re.IGNORECASE)
NUMBERED = re.compile(
    r"(num|exten|extension|channel|channelname|endpoint|endpointname|aor|objectname|accountid|accountcode|interface"
    r"|membername|location|agent|source|destination|device|peer|mailbox|conference)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Event:
    """An event as it came: its name, its other headers in their order, and when it was read (UTC)."""

    name: str
    fields: Fields
    at: datetime

    @classmethod
    def of(cls, headers: Mapping[str, str | list[str]]) -> Event:
        """The event of a message's headers, among them `Event`, read now. `content` is panoramisk's, not AMI's."""
        fields = {key: value for key, value in headers.items() if key.lower() not in ("event", "content")}
        return cls(str(headers["Event"]), fields, datetime.now(timezone.utc))

    def values(self, names: re.Pattern[str]) -> list[str]:
        """What the headers with such names hold."""
        found: list[str] = []
        for key, value in self.fields.items():
            if names.search(key):
                found += value if isinstance(value, list) else [value]
        return found


@dataclass(frozen=True)
class Filter:
    """Which events to show. Within a list one match is enough; each list that is not empty has to match.

    events: patterns of names, `*` and `?` allowed, in any case (`Queue*`).
    channels: patterns of channels' names (`PJSIP/6001-*`); without `*` or `?` the beginning is enough.
    numbers: numbers of telephones, queues or conferences, compared as a whole.
    """

    events: Sequence[str] = ()
    channels: Sequence[str] = ()
    numbers: Sequence[str] = ()

    def __call__(self, event: Event) -> bool:
        """Whether the event is to be shown."""
        return (
            (not self.events or any(fnmatch.fnmatchcase(event.name.lower(), name.lower()) for name in self.events))
            and (not self.channels or any(map(self._has_channel, event.values(CHANNEL))))
            and (not self.numbers or any(map(self._has_number, event.values(NUMBERED))))
        )

    def _has_channel(self, value: str) -> bool:
        return any(
            fnmatch.fnmatchcase(value.lower(), name.lower() + ("" if set("*?") & set(name) else "*"))
            for name in self.channels
        )

    def _has_number(self, value: str) -> bool:
        return any(re.search(rf"(?<![\w+*#]){re.escape(number)}(?![\w*#])", value) for number in self.numbers)


def timestamp(at: datetime) -> str:
    """A time as JSON carries it, in UTC to the millisecond: 2026-01-31T08:15:00.123Z."""
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> str:
    """This moment, as JSON carries it."""
    return timestamp(datetime.now(timezone.utc))


def as_object(event: Event) -> dict[str, object]:
    """The JSON form: `{"v": 1, "type": "event", "at": "…Z", "event": "Hangup", "fields": {"Channel": "…"}}`."""
    return {"v": SCHEMA, "type": "event", "at": timestamp(event.at), "event": event.name, "fields": event.fields}


def exchange_object(state: str, reason: str) -> dict[str, object]:
    """What is sent when the exchange is `connected` or `lost`, now: `{"v": 1, "type": "exchange", "at": "…Z", …}`."""
    return {"v": SCHEMA, "type": "exchange", "at": now(), "state": state, "reason": reason}


def as_json(value: object) -> str:
    """One line of JSON. Control characters of any kind are escaped, so that it is safe on a terminal."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "".join(c if c.isprintable() else _escape_for_json(c) for c in text) if not text.isprintable() else text


def _escape_for_json(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) != 0x7F else "\\u007f"


def as_text(event: Event) -> str:
    """One line to read: local time, name, and each header as `Key=value` that is neither empty nor `<unknown>`.

    Whoever calls chooses the name that is shown for him, so control characters are escaped: a terminal obeys them.
    """
    parts = [f"{event.at.astimezone():%Y-%m-%d %H:%M:%S}", printable(event.name)]
    for key, values in event.fields.items():
        for value in values if isinstance(values, list) else [values]:
            if value not in ("", "<unknown>"):
                shown = printable(value)
                quoted = json.dumps(shown, ensure_ascii=False) if re.search(r'[\s"=]', shown) else shown
                parts.append(f"{printable(key)}={quoted}")
    return " ".join(parts)


def printable(text: str) -> str:
    """The text with each character that is not one to print as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
