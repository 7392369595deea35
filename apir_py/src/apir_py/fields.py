"""What the headers of AMI's events and lists say."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any, Mapping

from apir_py.event import timestamp

LONGEST_TEXT = 200
"""Characters of a name or number in an item; callers choose them."""
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def text(fields: Mapping[str, Any], key: str, most: int = LONGEST_TEXT) -> str:
    """A header's text, empty if it is missing or unknown."""
    value = fields.get(key, "")
    value = value[0] if isinstance(value, list) else value
    return "" if value in ("<unknown>", "unknown") else value[:most]


def number_of(fields: Mapping[str, Any], key: str) -> int:
    """A header's number, 0 if it is none."""
    value = text(fields, key)
    return int(value) if value.isdigit() else 0


def epoch(fields: Mapping[str, Any], key: str) -> str | None:
    """A header's time, which is in seconds since 1970; None for 0, which means never."""
    seconds = number_of(fields, key)
    return timestamp(datetime.fromtimestamp(seconds, timezone.utc)) if seconds else None


def duration(value: str) -> timedelta:
    """hh:mm:ss as time."""
    hours, _, rest = value.partition(":")
    minutes, _, seconds = rest.partition(":")
    if hours.isdigit() and minutes.isdigit() and seconds.isdigit():
        return timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds))
    return timedelta()


def unescaped(value: str) -> str:
    r"""A name without the backslashes that AMI puts before quotes and control characters."""
    return re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[1]), value) if "\\" in value else value


def kind(fields: Mapping[str, Any]) -> str:
    """What a bridge is for: talk, hold (agents who wait, parked calls), or conference."""
    if text(fields, "BridgeCreator") == "ConfBridge":
        return "conference"
    return "hold" if text(fields, "BridgeTechnology") == "holding_bridge" else "talk"


def latency(microseconds: str, status: str) -> float | None:
    """The round trip to a contact in milliseconds; None if it was not measured."""
    known = microseconds.isdigit() and int(microseconds) and status == "Reachable"
    return int(microseconds) / 1000 if known else None
