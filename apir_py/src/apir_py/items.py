"""What clients see of a model: an item for each call, phone, queue, agent, conference and mailbox."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple

from apir_py.channels import UP, Channel
from apir_py.event import Event, Fields, Filter, timestamp
from apir_py.fields import LONGEST_TEXT

if TYPE_CHECKING:
    from apir_py.state import Model

TOPICS = ("calls", "phones", "queues", "agents", "conferences", "voicemail")
CALL_STATES = ("ringing", "talking", "waiting", "conference", "held", "service")
AGENT_STATES = ("logged_off", "idle", "ringing", "talking")
MEMBER_STATES = ("offline", "idle", "ringing", "talking", "paused")

Item = Dict[str, Any]


class Change(NamedTuple):
    """A new or changed item, or one that is gone: then it is None."""

    topic: str
    id: str
    item: Item | None


def named(model: Model, number: str, name: str = "") -> Item:
    """A number with its name, which the configuration knows better than a caller."""
    return {"number": number, "name": model.names.get(number) or name}


def party(model: Model, channel: Channel) -> Item:
    """Who is at a channel."""
    number = channel.agent or (channel.endpoint if channel.endpoint in model.by_phone else channel.number)
    return named(model, number, channel.caller_name)


def talks(model: Model, channel: Channel) -> bool:
    """Whether somebody talks over a channel."""
    bridged = channel.bridge and model.bridges.get(channel.bridge, "talk") == "talk"
    return channel.state == UP and bool(bridged or channel.dialled)


def call_item(model: Model, id: str) -> Item | None:
    """A call; None once it has ended."""
    call = model.calls.get(id)
    if not call:
        return None
    channels = sorted((model.channels[uid] for uid in call.channels), key=lambda channel: (channel.began, channel.uid))
    real = [channel for channel in channels if not channel.inner]
    if not real:
        return None
    caller = model.channels[call.anchor]
    others = [channel for channel in real if channel is not caller]
    talkers = [channel for channel in others if talks(model, channel)]
    joined = [channel.conference or "" for channel in real if model.bridges.get(channel.bridge) == "conference"]
    joined += [channel.conference for channel in real if channel.conference]
    queue = next((channel.queue for channel in channels if channel.queue), "")
    call.queue = queue or call.queue
    if joined:
        state = "conference"
    elif queue:
        state = "waiting"
    elif talkers and caller.state == UP:
        state = "held" if any(channel.held for channel in (caller, *talkers)) else "talking"
    elif any(channel.state != UP for channel in real):
        state = "ringing"
    else:
        parked = model.bridges.get(caller.bridge) == "hold" and not caller.agent
        state = "held" if parked else "service"
    if state in ("talking", "conference", "held") and not call.talked:
        found = id not in model.published["calls"] and not caller.up  # it was there before the service
        call.talked, call.answered = True, None if found else call.touched
    elif state == "service":
        call.answered = call.answered or caller.up
    elif not call.talked:
        call.answered = None
    number = caller.exten or (party(model, others[0])["number"] if others else "")
    callee = named(model, number)
    for other in others:
        if not callee["name"] and party(model, other)["number"] == number:
            callee = party(model, other)
    return {
        "id": id,
        "began": timestamp(call.began),
        "answered": timestamp(call.answered) if call.answered else None,
        "state": state,
        "caller": party(model, caller),
        "callee": callee if number else None,
        "answered_by": party(model, talkers[-1]) if state in ("talking", "held") and talkers else None,
        "queue": call.queue or model.queue_of_number.get(number),
        "conference": next(filter(None, joined), None),
        "channels": [channel.name for channel in real],
    }


def phone_item(model: Model, number: str) -> Item | None:
    """A phone."""
    if number not in model.by_phone:
        return None
    channels = [model.channels[uid] for uid in sorted(model.by_phone[number])]
    contacts = list(model.contacts[number].values())
    live = [channel for channel in channels if channel.state == UP and not channel.held]
    if live:
        state = "talking"
    elif any(channel.state != UP for channel in channels):
        state = "ringing"
    elif channels:
        state = "held"
    else:
        reachable = any(contact["status"] != "Unreachable" for contact in contacts)
        state = "idle" if reachable else "offline"
    shown = live or channels
    item = model.published["calls"].get(shown[0].call) if shown else None
    return {
        "id": number,
        "name": model.names.get(number, ""),
        "registered": bool(contacts),
        "state": state,
        "contacts": [shown_contact(contact) for contact in contacts],
        "codec": next((channel.codec for channel in (*live, *channels) if channel.codec), None),
        "call": item["id"] if item else None,
        "webrtc": model.config.phones[number],
        "since": model.since_state(("phones", number), state),
    }


def talks_to(model: Model, uid: str) -> Item | None:
    """Who is at the other end of a channel's call, while they talk."""
    channel = model.channels.get(uid)
    item = model.published["calls"].get(channel.call) if channel else None
    if not channel or not item or item["state"] not in ("talking", "held"):
        return None
    if model.calls[channel.call].anchor == uid:
        return item["answered_by"]
    return item["caller"] if talks(model, channel) else None


def queue_item(model: Model, name: str) -> Item | None:
    """A queue with its callers and members."""
    if name not in model.waiting:
        return None
    number = model.config.queues[name]
    waiting = []
    for position, entry in enumerate(model.waiting[name], 1):
        channel = model.channels.get(entry.uid)
        person = party(model, channel) if channel else named(model, entry.number, entry.name)
        call = model.published["calls"].get(channel.call) if channel else None
        waiting.append(
            {"position": position, **person, "since": timestamp(entry.since), "call": call["id"] if call else None}
        )
    members = []
    for interface, member in sorted(model.members[name].items()):
        members.append(shown_member(model, (name, interface), member))
    answered, abandoned = model.today.counts(name)
    return {
        "id": name,
        "name": model.names.get(name) or model.names.get(number) or name,
        "number": number,
        "waiting": waiting,
        "members": members,
        "answered": answered,
        "abandoned": abandoned,
        "longest_wait_since": min((entry["since"] for entry in waiting), default=None),
    }


def shown_member(model: Model, key: tuple[str, str], member: Item) -> Item:
    """A member of a queue; `key` is the queue and what it calls."""
    number, state = member["number"], member["state"]
    # Asterisk says "in use" of an agent who is called, and "unavailable" for some seconds after a login.
    if member["agent"] and state != "offline":
        state = agent_state(model, number, key[1]).replace("logged_off", "offline")
    if member["paused"] and state == "idle":
        state = "paused"
    agent = model.agent_channels.get(number, "")
    uids = [agent] if member["agent"] else sorted(model.by_phone.get(number, ()))
    return {
        **{name: value for name, value in member.items() if name != "agent"},
        "state": state,
        "since": model.since_state(key, state),
        "caller": next(filter(None, (talks_to(model, uid) for uid in uids)), None),
    }


def agent_state(model: Model, number: str, interface: str) -> str:
    """An agent's state; `interface` is what queues call."""
    uid = model.agent_channels.get(number)
    if not uid:
        return "logged_off"
    if talks_to(model, uid):
        return "talking"
    called = (model.channels[local] for local in model.called.get(interface, ()))
    return "ringing" if any(channel.state != UP and channel.dialled for channel in called) else "idle"


def agent_item(model: Model, number: str) -> Item | None:
    """An agent."""
    if number not in model.config.agents:
        return None
    state, uid = agent_state(model, number, f"Local/{number}@agents"), model.agent_channels.get(number, "")
    return {
        "id": number,
        "name": model.config.agents[number] or model.names.get(number, ""),
        "state": state,
        "since": model.since_state(("agents", number), state),
        "caller": talks_to(model, uid),
        "queues": sorted(
            name
            for name, members in model.members.items()
            if any(member["number"] == number for member in members.values())
        ),
    }


def conference_item(model: Model, number: str) -> Item | None:
    """A conference with its participants."""
    if number not in model.conferences:
        return None
    conference = sorted(model.conferences[number].values(), key=lambda found: (found["since"], found["channel"].uid))
    return {
        "id": number,
        "participants": [
            {
                **party(model, found["channel"]),
                "since": found["since"],
                "muted": found["muted"],
                "talking": found["talking"],
            }
            for found in conference
        ],
        "since": conference[0]["since"] if conference else None,
    }


def mailbox_item(model: Model, number: str) -> Item | None:
    """A mailbox."""
    if number not in model.voicemail:
        return None
    name = model.names.get(number) or model.names.get(number.partition("@")[0], "")
    return {"id": number, "name": name, **model.voicemail[number]}


def shown_contact(contact: Item) -> Item:
    """A contact as it is shown: address, transport, latency, user agent."""
    found = re.match(r"(sips?):(?:[^@]*@)?(\[[^\]]*\](?::\d+)?|[^;>?]*)", contact["uri"])
    transport = re.search(r";transport=(\w+)", contact["uri"], re.IGNORECASE)
    return {
        "address": found[2][:LONGEST_TEXT] if found else "",
        "transport": transport[1].lower()[:10] if transport else "udp",
        "latency_ms": contact["latency"],
        "user_agent": contact["user_agent"],
    }


BUILDERS: tuple[tuple[str, Callable[[Model, str], Item | None]], ...] = (
    ("calls", call_item),
    ("phones", phone_item),
    ("queues", queue_item),
    ("agents", agent_item),
    ("conferences", conference_item),
    ("voicemail", mailbox_item),
)


def event_of(topic: str, item: Item) -> Event:
    """The event that stands for an item before a user's filter: its name is the topic's, as `Calls`."""
    if topic == "calls":
        people = [item[key]["number"] for key in ("caller", "callee", "answered_by") if item[key]]
        fields: Fields = {
            "Channel": item["channels"],
            "CallerIDNum": [*people, item["queue"] or "", item["conference"] or ""],
        }
    elif topic == "phones":
        fields = {"Channel": f"PJSIP/{item['id']}-", "Endpoint": item["id"]}
    elif topic == "queues":
        fields = {"Exten": [item["id"], item["number"]]}
    elif topic == "agents":
        fields = {"Agent": item["id"]}
    elif topic == "conferences":
        fields = {"Conference": item["id"]}
    else:
        fields = {"Mailbox": item["id"]}
    return Event(topic.capitalize(), fields, datetime.now(timezone.utc))


def may_see(sees: Filter, topic: str, item: Item) -> bool:
    """Whether a user with this filter may see an item."""
    return sees == Filter() or sees(event_of(topic, item))
