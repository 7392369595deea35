"""What `/metrics` says, in Prometheus' text form."""

from __future__ import annotations

import json
import logging
import ssl
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, NamedTuple, Tuple

from apir_py.items import AGENT_STATES, CALL_STATES, MEMBER_STATES, Item
from apir_py.state import Model

log = logging.getLogger(__name__)
Labels = Tuple[Tuple[str, str], ...]
TIME_TAGS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


class Metric(NamedTuple):
    """A metric: name, type and meaning, and its values by their labels."""

    name: str
    kind: str
    help: str
    values: dict[Labels, float]


def written(metrics: list[Metric]) -> str:
    """Prometheus' text form; a metric without values is left out."""
    lines = []
    for metric in metrics:
        if metric.values:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in metric.values.items():
            shown = ",".join(f'{key}="{escaped(text)}"' for key, text in labels)
            lines.append(f"{metric.name}{{{shown}}} {value:.15g}" if shown else f"{metric.name} {value:.15g}")
    return "\n".join([*lines, ""])


def escaped(text: str) -> str:
    """A label's value."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def of_state(model: Model) -> list[Metric]:
    """Calls, phones, queues, agents, conferences and mailboxes, as the page shows them."""
    calls, phones, queues = model.items("calls"), model.items("phones"), model.items("queues")
    conferences, mailboxes = model.items("conferences"), model.items("voicemail")
    latencies: dict[Labels, float] = {}
    for phone in phones:
        measured = [contact["latency_ms"] for contact in phone["contacts"] if contact["latency_ms"] is not None]
        if measured:
            latencies[(("phone", phone["id"]),)] = max(measured) / 1000
    members: dict[Labels, float] = {}
    for queue in queues:
        for state, count in count_states(queue["members"], MEMBER_STATES).items():
            members[(("queue", queue["id"]), *state)] = count
    start = model.today.since_start

    def of_queues(value: Callable[[Item], float]) -> dict[Labels, float]:
        return {(("queue", queue["id"]),): value(queue) for queue in queues}

    return [
        Metric("apir_py_calls", "gauge", "Calls in progress", count_states(calls, CALL_STATES)),
        Metric("apir_py_phones", "gauge", "Phones that there are", {(): len(phones)}),
        Metric(
            "apir_py_phones_registered",
            "gauge",
            "Phones that are registered",
            {(): sum(phone["registered"] for phone in phones)},
        ),
        Metric("apir_py_phone_latency_seconds", "gauge", "Round trip to a phone", latencies),
        Metric("apir_py_queue_callers", "gauge", "Callers who wait", of_queues(lambda queue: len(queue["waiting"]))),
        Metric(
            "apir_py_queue_longest_wait_seconds",
            "gauge",
            "How long the caller has waited who has waited longest",
            of_queues(lambda queue: seconds_since(queue["longest_wait_since"])),
        ),
        Metric("apir_py_queue_members", "gauge", "Members of a queue", members),
        Metric(
            "apir_py_queue_answered_today",
            "gauge",
            "Callers who were answered since midnight",
            of_queues(lambda queue: queue["answered"]),
        ),
        Metric(
            "apir_py_queue_abandoned_today",
            "gauge",
            "Callers who gave up since midnight",
            of_queues(lambda queue: queue["abandoned"]),
        ),
        Metric(
            "apir_py_queue_answered_total",
            "counter",
            "Callers who were answered since the service started",
            of_queues(lambda queue: start[queue["id"]]["answered"]),
        ),
        Metric(
            "apir_py_queue_abandoned_total",
            "counter",
            "Callers who gave up since the service started",
            of_queues(lambda queue: start[queue["id"]]["abandoned"]),
        ),
        Metric("apir_py_agents", "gauge", "Agents", count_states(model.items("agents"), AGENT_STATES)),
        Metric(
            "apir_py_conference_participants",
            "gauge",
            "Who is in a conference",
            {(("conference", conference["id"]),): len(conference["participants"]) for conference in conferences},
        ),
        Metric(
            "apir_py_voicemail_new_messages",
            "gauge",
            "Messages that nobody has heard yet",
            {(("mailbox", box["id"]),): box["new"] for box in mailboxes if box["new"] is not None},
        ),
    ]


def of_records(path: str) -> list[Metric]:
    """The call records that wait for the database, as their forwarder writes it to a file; nothing without the file."""
    try:
        status = json.loads(Path(path).read_text(encoding="utf-8"))
        return [
            Metric(f"apir_py_call_records_{name}", "gauge", text, {(): float(status[key])})
            for name, key, text in (
                ("waiting", "waiting", "Call records that are not in the database yet"),
                ("events_waiting", "waiting_events", "Channel events that are not in the database yet"),
                ("oldest_seconds", "oldest_seconds", "How long the oldest of them has waited"),
                ("rejected", "rejected", "Call records that the database has refused"),
            )
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: no status of the call records: %s", path, error)
        return []


def of_copies(path: str) -> list[Metric]:
    """When the last copy off the site was made and checked, as its program writes it; nothing where none is made."""
    try:
        status = json.loads(Path(path).read_text(encoding="utf-8"))
        return [
            Metric(f"apir_py_{name}", "gauge", text, {(): float(value)})
            for name, text, value in (
                (
                    "copy_timestamp_seconds",
                    "When the last copy off the site was made, in seconds since 1970, 0 for never",
                    status.get("copied", 0),
                ),
                ("copy_checked_timestamp_seconds", "When it was checked", status.get("checked", 0)),
                ("copy_failed", "Whether the last attempt failed", bool(status.get("problem"))),
            )
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("%s: no status of the copies: %s", path, error)
        return []


def count_states(items: list[Item], states: tuple[str, ...]) -> dict[Labels, float]:
    """How many items are in each state."""
    counts = dict.fromkeys(states, 0)
    for item in items:
        counts[item["state"]] += 1
    return {(("state", state),): count for state, count in counts.items()}


def seconds_since(at: str | None) -> float:
    """Seconds since a time as JSON carries it; 0 without one."""
    if not at:
        return 0
    since = datetime.strptime(at, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    return max(0, round(time.time() - since.timestamp(), 3))


def of_certificate(ends: float) -> list[Metric]:
    """Until when the certificate is valid; `ends` is in seconds since 1970."""
    return [
        Metric("apir_py_certificate_expires_timestamp_seconds", "gauge", "When the certificate expires", {(): ends}),
        Metric(
            "apir_py_certificate_days_left",
            "gauge",
            "Days until the certificate expires",
            {(): round((ends - time.time()) / 86400, 3)},
        ),
    ]


def certificate_ends(path: str) -> float:
    """When the first certificate of a PEM file expires, in seconds since 1970 (OSError, ValueError).

    In DER it is the second time of the field `validity`, after the version, if there is one, the serial number, the
    algorithm and the issuer (RFC 5280, 4.1). Python's ssl reads that field of other hosts' certificates alone.
    """
    with open(path, encoding="ascii", errors="replace") as file:
        pem = file.read()
    start = pem.index("-----BEGIN CERTIFICATE-----")
    end = pem.index("-----END CERTIFICATE-----", start)
    der = ssl.PEM_cert_to_DER_cert(pem[start:end] + "-----END CERTIFICATE-----\n")
    try:
        _, body, _ = element(der, 0)
        _, at, _ = element(der, body)
        for _ in range(4 if der[at] == 0xA0 else 3):
            _, _, at = element(der, at)
        _, validity, _ = element(der, at)
        _, _, second = element(der, validity)
        tag, first, last = element(der, second)
        text = der[first:last].decode("ascii")
        return datetime.strptime(text, TIME_TAGS[tag]).replace(tzinfo=timezone.utc).timestamp()
    except (IndexError, KeyError) as error:
        raise ValueError(f"{path} holds no certificate") from error


def element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the content of an element in DER."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[at + 2 : start], "big")
    return der[at], start, start + length
