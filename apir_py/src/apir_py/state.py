"""What happens on the exchange, made of AMI's events and of the lists that AMI gives: calls, phones, queues, agents.

The model asks nobody and waits for nothing. It gets each event (`apply`) and each list (`take_…`) at its place among
the events, and gives what has changed (`flush`). A list is the truth at its place, or a little ahead of it, since
Asterisk changes what it lists before it tells of the change: what the list lacks is removed, a channel only if a second
list lacks it as well. So whatever was missed is made good by the next list, and an event that follows it is neither
lost nor undone.
"""

from __future__ import annotations

import logging
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Union

from apir_py.event import Event, Fields, Filter, timestamp

if TYPE_CHECKING:
    from apir_py.config import Config
    from apir_py.today import Today

TOPICS = ("calls", "phones", "queues", "agents", "conferences", "voicemail")
CALL_STATES = ("ringing", "talking", "waiting", "conference", "held", "service")
AGENT_STATES = ("logged_off", "idle", "ringing", "talking")
MEMBER_STATES = ("offline", "idle", "ringing", "talking", "paused")
UP = "6"
MOST_CHANNELS = 20_000
"""Channels, and bridges, that are kept; beyond it new ones are not, which an exchange that works never reaches."""
MOST_GONE = 1000
"""Channels that have gone and that nothing late brings back."""
LOGGED_ERRORS = 20
LONGEST_TEXT = 200
"""Characters of a name or number in an item; callers choose them."""
HOLD_BELIEVED = timedelta(seconds=5)
"""For so long a Hold is believed although the state of the device, which follows later, says otherwise."""

# ast_device_state, as the member of a queue has it
DEVICE = {"1": "idle", "2": "talking", "3": "talking", "6": "ringing", "7": "ringing", "8": "talking"}
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
# Technologies of channels that are nobody's: ends of a channel between two parts of the exchange, and what only plays.
INNER = ("Local/", "Surrogate/", "AsyncGoto/", "Announcer/", "Recorder/", "CBAnn/", "CBRec/", "Message/", "Snoop/")
# Events that may tell of a channel for the first time; later ones could bring back one that has gone.
FIRST = {"Newchannel", "Newstate", "DialBegin", "BridgeEnter", "QueueCallerJoin", "ConfbridgeJoin", "AgentLogin"}

log = logging.getLogger(__name__)
Item = Dict[str, Any]
Rows = Iterable[Mapping[str, Union[str, List[str]]]]


class Change(NamedTuple):
    """A new or changed item, or one that is gone: then it is None."""

    topic: str
    id: str
    item: Item | None


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


class Model:
    """See the module. `changed` is called when there is something for `flush` to give; it must not wait.

    wanted_contacts, wanted_codecs, wanted_extensions: phones and channels of which something has to be asked; `wants`
    is called when there are more of them. lacking: channels that the last list lacked; if there are any, it has to be
    asked for again.
    """

    def __init__(self, config: Config, today: Today, changed: Callable[[], None] = lambda: None) -> None:
        """Knows what the configuration names, and nothing of the exchange."""
        self.config, self.today, self.changed = config, today, changed
        self.names: dict[str, str] = {**config.agents, **config.names}
        self.queue_of_number = {number: name for name, number in config.queues.items() if number}
        self.channels: dict[str, Channel] = {}
        self.calls: dict[str, Call] = {}
        self.bridges: dict[str, str] = {}  # kind: talk, hold, conference
        self._origins: dict[str, set[str]] = {}
        self._members: dict[str, set[str]] = {}  # of bridges
        self._pairs: dict[str, set[str]] = {}
        self._dials: dict[str, set[str]] = {}
        self._gone: dict[str, None] = {}  # channels that hung up, the last ones
        self.lacking: set[str] = set()
        self.contacts: dict[str, dict[str, Item]] = {number: {} for number in config.phones}
        self.by_phone: dict[str, set[str]] = {number: set() for number in config.phones}
        self.waiting: dict[str, list[Waiting]] = {name: [] for name in config.queues}
        self.members: dict[str, dict[str, Item]] = {name: {} for name in config.queues}
        self.agent_channels: dict[str, str] = {}
        self._called: dict[str, set[str]] = {}  # Local channels by what a queue calls, as Local/6001@agents
        self.conferences: dict[str, dict[str, Item]] = {number: {} for number in config.conferences}
        self.voicemail: dict[str, Item] = {number: {"new": None, "old": None} for number in config.mailboxes}
        self._since: dict[tuple[str, str], tuple[str, str | None]] = {}  # state of an item, and since when
        self.published: dict[str, dict[str, Item]] = {topic: {} for topic in TOPICS}
        self._dirty: dict[str, set[str]] = {topic: set() for topic in TOPICS}
        self._moved: set[str] = set()
        self.ready = False
        self.at = datetime.now(timezone.utc)
        self.errors = 0
        self.wants: Callable[[], None] = lambda: None
        self.wanted_contacts: set[str] = set()
        self.wanted_codecs: set[str] = set()
        self.wanted_extensions: set[str] = set()
        self._mark_all()

    # What comes in

    def apply(self, event: Event) -> None:
        """An event has come; one that makes no sense is ignored."""
        handler = HANDLERS.get(event.name)
        if not handler:
            return
        self.at = event.at
        try:
            handler(self, event.name, event.fields)
        except Exception:  # one event that makes no sense must not end the service
            self.errors += 1
            if self.errors <= LOGGED_ERRORS:
                log.exception("%s ignored", event.name)
        if self._moved or any(self._dirty.values()):
            self.changed()
        if self.wanted_contacts or self.wanted_codecs:
            self.wants()

    def _channel(self, name: str, fields: Mapping[str, Any], prefix: str = "") -> Channel | None:
        """The channel of an event, as the event describes it."""
        uid = text(fields, prefix + "Uniqueid")
        channel = self.channels.get(uid)
        if not channel:
            named = text(fields, prefix + "Channel")
            full = len(self.channels) >= MOST_CHANNELS
            if name not in FIRST or not uid or not named or full or uid in self._gone:
                return None
            channel = Channel(uid, named, text(fields, prefix + "Linkedid") or uid, self.at)
            self.channels[uid] = channel
            self._origins.setdefault(channel.origin, set()).add(uid)
            self._index(channel)
        channel.number = text(fields, prefix + "CallerIDNum") or channel.number
        channel.caller_name = unescaped(text(fields, prefix + "CallerIDName")) or channel.caller_name
        state = text(fields, prefix + "ChannelState") or channel.state
        if state == UP and channel.state != UP and name != "list":
            channel.up = self.at
        channel.state = state
        exten = text(fields, prefix + "Exten")
        if exten and exten[0] in "0123456789*#+" and not channel.exten:
            channel.exten = exten
        if channel.state == UP and channel.codec is None and channel.endpoint in self.by_phone:
            channel.codec = ""
            self.wanted_codecs.add(uid)
        self._touch(channel)
        return channel

    def _index(self, channel: Channel) -> None:
        if channel.pair:
            self._pairs.setdefault(channel.pair, set()).add(channel.uid)
            self._called.setdefault(channel.pair.rpartition("-")[0], set()).add(channel.uid)
        if channel.endpoint in self.by_phone:
            self.by_phone[channel.endpoint].add(channel.uid)

    def _unindex(self, channel: Channel) -> None:
        if channel.pair:
            drop(self._pairs, channel.pair, channel.uid)
            drop(self._called, channel.pair.rpartition("-")[0], channel.uid)
        if channel.endpoint in self.by_phone:
            self.by_phone[channel.endpoint].discard(channel.uid)
            self._mark("phones", channel.endpoint)

    def _touch(self, channel: Channel) -> None:
        """Something about the channel has changed, and with it perhaps what belongs to its call."""
        call = self.calls.get(channel.call)
        self._moved.add(channel.uid)
        if channel.endpoint in self.by_phone:
            self._mark("phones", channel.endpoint)
        if channel.pair:
            self._mark_number(channel.pair[6:].partition("@")[0])
        if call:
            call.touched = self.at
            self._moved |= call.channels

    def _remove(self, channel: Channel) -> None:
        uid = channel.uid
        self._touch(channel)
        self._enter(channel, "")
        del self.channels[uid]
        self._moved.discard(uid)
        self._unindex(channel)
        drop(self._origins, channel.origin, uid)
        for called in self._dials.pop(uid, ()):
            self.channels[called].dialler = ""
        drop(self._dials, channel.dialler, uid)
        if channel.queue:
            self._leave_queue(channel.queue, uid)
        if channel.conference in self.conferences:
            self.conferences[channel.conference].pop(uid, None)
            self._mark("conferences", channel.conference)
        if channel.agent and self.agent_channels.get(channel.agent) == uid:
            del self.agent_channels[channel.agent]
            self._mark_number(channel.agent)
        for wanted in (self.wanted_codecs, self.wanted_extensions):
            wanted.discard(uid)
        self._out_of_call(channel)

    def _out_of_call(self, channel: Channel) -> None:
        call = self.calls.get(channel.call)
        channel.call = ""
        if call:
            call.channels.discard(channel.uid)
            self._mark("calls", call.id)
            if not call.channels:
                del self.calls[call.id]

    def _enter(self, channel: Channel, bridge: str) -> None:
        if channel.bridge != bridge:
            drop(self._members, channel.bridge, channel.uid)
            channel.bridge = bridge
            if bridge:
                self._members.setdefault(bridge, set()).add(channel.uid)

    def _on_channel(self, name: str, fields: Fields) -> None:
        self._channel(name, fields)

    def _on_hangup(self, name: str, fields: Fields) -> None:
        uid = text(fields, "Uniqueid")
        if uid in self.channels:
            self._remove(self.channels[uid])
        self._gone[uid] = None
        if len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def _on_rename(self, name: str, fields: Fields) -> None:
        channel = self.channels.get(text(fields, "Uniqueid"))
        if channel:
            self._unindex(channel)
            channel.rename(text(fields, "Newname"))
            self._index(channel)
            self._touch(channel)

    def _on_dial(self, name: str, fields: Fields) -> None:
        caller = self._channel(name, fields)
        called = self._channel(name, fields, "Dest")
        if called:
            called.dialled = True
            if caller and called.dialler != caller.uid:
                drop(self._dials, called.dialler, called.uid)
                called.dialler = caller.uid
                self._dials.setdefault(caller.uid, set()).add(called.uid)

    def _on_hold(self, name: str, fields: Fields) -> None:
        channel = self._channel(name, fields)
        if channel:
            channel.held, channel.held_at = name == "Hold", self.at

    def _on_bridge(self, name: str, fields: Fields) -> None:
        bridge = text(fields, "BridgeUniqueid")
        if name == "BridgeDestroy":
            self.bridges.pop(bridge, None)
            for uid in self._members.pop(bridge, ()):
                self.channels[uid].bridge = ""
                self._touch(self.channels[uid])
            return
        if name != "BridgeLeave" and bridge and len(self.bridges) < MOST_CHANNELS:
            self.bridges[bridge] = kind(fields)
        if name == "BridgeCreate":
            return
        channel = self._channel(name, fields)
        if channel and name == "BridgeEnter":
            self._enter(channel, bridge)
            self._touch(channel)
        elif channel and channel.bridge == bridge:
            for uid in self._members.get(bridge, ()):
                self._touch(self.channels[uid])
            self._enter(channel, "")

    def _on_transfer(self, name: str, fields: Fields) -> None:
        channel = self._channel(name, fields, "Transferee")
        if channel and text(fields, "Extension"):
            channel.exten = text(fields, "Extension")

    def _on_queue_caller(self, name: str, fields: Fields) -> None:
        channel = self._channel(name, fields)
        queue, uid = text(fields, "Queue"), text(fields, "Uniqueid")
        known = queue in self.waiting
        if name == "QueueCallerAbandon":
            if known:
                self.today.add(queue, "abandoned")
                self._mark("queues", queue)
            return
        if name == "QueueCallerLeave":
            self._leave_queue(queue, uid)
            if channel:
                channel.queue = ""
            return
        if channel:
            channel.queue = queue
        if known and channel:
            line = self.waiting[queue]
            line[:] = [waiting for waiting in line if waiting.uid != uid]
            position = number_of(fields, "Position") or len(line) + 1
            line.insert(position - 1, Waiting(uid, channel.number, channel.caller_name, self.at))
            self._mark("queues", queue)

    def _leave_queue(self, queue: str, uid: str) -> None:
        if queue in self.waiting:
            line = self.waiting[queue]
            line[:] = [waiting for waiting in line if waiting.uid != uid]
            self._mark("queues", queue)

    def _on_member(self, name: str, fields: Fields) -> None:
        queue = text(fields, "Queue")
        interface = text(fields, "Interface") or text(fields, "Location")
        if queue not in self.members or not interface:
            return
        if name == "QueueMemberRemoved":
            gone = self.members[queue].pop(interface, None)
            self._since.pop((queue, interface), None)
            self._mark("agents", gone["number"] if gone else "")
        else:
            member = self.members[queue][interface] = self._member(interface, fields)
            self._mark("agents", member["number"])
        self._mark("queues", queue)

    def _member(self, interface: str, fields: Mapping[str, Any]) -> Item:
        found = re.match(r"(?:PJSIP/|Local/|Agent:)([^@/;]+)", interface)
        number = found[1] if found else interface
        paused = text(fields, "Paused") == "1"
        return {
            "number": number,
            "name": self.names.get(number) or text(fields, "MemberName") or text(fields, "Name"),
            "state": DEVICE.get(text(fields, "Status"), "offline"),
            "agent": text(fields, "StateInterface").startswith("Agent:"),
            "paused": paused,
            "reason": (paused and text(fields, "PausedReason")) or None,
            "paused_since": epoch(fields, "LastPause") if paused else None,
            "last_call": epoch(fields, "LastCall"),
            "calls": number_of(fields, "CallsTaken"),
        }

    def _on_agent_called(self, name: str, fields: Fields) -> None:
        if name == "AgentConnect" and text(fields, "Queue") in self.waiting:
            self.today.add(text(fields, "Queue"), "answered")
            self._mark("queues", text(fields, "Queue"))
        self._channel(name, fields)

    def _on_agent(self, name: str, fields: Fields) -> None:
        channel, number = self._channel(name, fields), text(fields, "Agent")
        if channel and name == "AgentLogin":
            self._log_in(channel, number)
        elif channel and channel.agent == number:
            self._log_off(channel)

    def _log_in(self, channel: Channel, number: str) -> None:
        channel.agent = number
        self.agent_channels[number] = channel.uid
        self._touch(channel)
        self._mark_number(number)

    def _log_off(self, channel: Channel) -> None:
        self.agent_channels.pop(channel.agent, None)
        self._mark_number(channel.agent)
        channel.agent = ""
        self._touch(channel)

    def _on_contact(self, name: str, fields: Fields) -> None:
        number, uri = text(fields, "AOR"), text(fields, "URI", 1000)
        if number not in self.contacts:
            return
        status = text(fields, "ContactStatus")
        for id, contact in list(self.contacts[number].items()):
            if contact["uri"] == uri:
                if status == "Removed":
                    del self.contacts[number][id]
                else:
                    contact.update(status=status, latency=latency(text(fields, "RoundtripUsec"), status))
                self._mark("phones", number)
        self.wanted_contacts.add(number)

    def _on_conference(self, name: str, fields: Fields) -> None:
        number = text(fields, "Conference")
        conference = self.conferences.get(number)
        channel = self._channel(name, fields)
        uid = text(fields, "Uniqueid")
        if name == "ConfbridgeJoin" and channel:
            channel.conference = number
        elif name == "ConfbridgeLeave" and channel:
            channel.conference = ""
        if conference is None:
            return
        self._mark("conferences", number)
        if name == "ConfbridgeEnd":
            conference.clear()
        elif name == "ConfbridgeLeave":
            conference.pop(uid, None)
        elif name == "ConfbridgeJoin" and channel:
            muted = text(fields, "Muted") == "Yes"
            conference[uid] = {"channel": channel, "since": timestamp(self.at), "muted": muted, "talking": False}
        elif uid in conference and name == "ConfbridgeTalking":
            conference[uid]["talking"] = text(fields, "TalkingStatus") == "on"
        elif uid in conference:
            conference[uid]["muted"] = name == "ConfbridgeMute"

    def _on_voicemail(self, name: str, fields: Fields) -> None:
        number, _, context = text(fields, "Mailbox").partition("@")
        self._mailbox(number, context, text(fields, "New"), text(fields, "Old"))

    def _mailbox(self, number: str, context: str, new: str, old: str) -> None:
        id = f"{number}@{context}" if f"{number}@{context}" in self.voicemail else number
        if id in self.voicemail and new.isdigit():
            self.voicemail[id] = {"new": int(new), "old": int(old) if old.isdigit() else None}
            self._mark("voicemail", id)

    # Lists

    def take_bridges(self, rows: Rows) -> None:
        """The answer to BridgeList."""
        self.bridges = {text(row, "BridgeUniqueid"): kind(row) for row in rows}
        self._moved |= self.channels.keys()
        self.changed()

    def take_channels(self, rows: Rows) -> None:
        """The answer to CoreShowChannels."""
        self.at = datetime.now(timezone.utc)
        listed = set()
        for row in rows:
            uid = text(row, "Uniqueid")
            application, data = text(row, "Application"), text(row, "ApplicationData")
            known = uid in self.channels
            channel = self._channel("list", row)
            if not channel:
                continue
            listed.add(uid)
            channel.dialled = channel.dialled or application.startswith(("AppDial", "AppQueue"))
            if text(row, "Channel") != channel.name:
                self._on_rename("Rename", {"Uniqueid": uid, "Newname": text(row, "Channel")})
            if not known:
                channel.began = self.at - duration(text(row, "Duration"))
            if not channel.exten and not channel.inner and not channel.dialled:
                self.wanted_extensions.add(uid)
            self._enter(channel, text(row, "BridgeId"))
            agent = re.split(r"[,|]", data)[0] if application == "AgentLogin" else ""
            if agent and channel.agent != agent and channel.bridge:  # the greeting is over
                self._log_in(channel, agent)
            elif not agent and channel.agent and application != "AgentLogin":
                self._log_off(channel)
        lacking = self.channels.keys() - listed  # gone, or passed over, as one that is renamed may be
        for uid in lacking & self.lacking:
            self._remove(self.channels[uid])
        self.lacking = lacking - self.lacking
        self._moved |= self.channels.keys()
        self.changed()
        self.wants()

    def take_queue(self, queue: str, rows: Rows) -> None:
        """The answer to QueueStatus for one queue."""
        self.at = datetime.now(timezone.utc)
        line, members = [], {}
        for row in rows:
            if text(row, "Queue") != queue:
                continue
            if text(row, "Event") == "QueueMember":
                interface = text(row, "Location")
                members[interface] = self._member(interface, row)
            elif text(row, "Event") == "QueueEntry":
                since = self.at - timedelta(seconds=number_of(row, "Wait"))
                line.append(Waiting(text(row, "Uniqueid"), text(row, "CallerIDNum"), text(row, "CallerIDName"), since))
        before = {waiting.uid: waiting for waiting in self.waiting[queue]}
        now = {waiting.uid for waiting in line}
        self.waiting[queue] = [before.get(waiting.uid, waiting) for waiting in line]
        for uid in before.keys() | now:
            channel = self.channels.get(uid)
            if channel and (uid in now or channel.queue == queue):
                channel.queue = queue if uid in now else ""
                self._touch(channel)
        for interface in self.members[queue].keys() - members.keys():
            self._since.pop((queue, interface), None)
        for member in (*self.members[queue].values(), *members.values()):
            self._mark("agents", member["number"])
        self.members[queue] = members
        self._mark("queues", queue)
        self.changed()

    def take_conference(self, number: str, rows: Rows) -> None:
        """The answer to ConfbridgeList for one conference; an error, which nobody being there is, gives no rows."""
        self.at = datetime.now(timezone.utc)
        conference: dict[str, Item] = {}
        before = self.conferences[number]
        for row in rows:
            channel = self.channels.get(text(row, "Uniqueid"))
            if not channel:
                continue
            since = timestamp(self.at - timedelta(seconds=number_of(row, "AnsweredTime")))
            old = before.get(channel.uid)
            conference[channel.uid] = {
                "channel": channel,
                "since": old["since"] if old else since,
                "muted": text(row, "Muted") == "Yes",
                "talking": text(row, "Talking") == "Yes",
            }
        for uid in before.keys() | conference.keys():
            channel = self.channels.get(uid)
            if channel:
                channel.conference = number if uid in conference else ""
                self._touch(channel)
        self.conferences[number] = conference
        self._mark("conferences", number)
        self.changed()

    def take_hold(self, number: str, state: str) -> None:
        """The state of a phone's device, which says whether the only call that the phone is in is on hold."""
        up = [self.channels[uid] for uid in self.by_phone[number] if self.channels[uid].state == UP]
        held = state == "ONHOLD"
        if len(up) == 1 and up[0].held != held and self.at - up[0].held_at > HOLD_BELIEVED:
            up[0].held = held
            self._touch(up[0])
            self.changed()

    def take_mailboxes(self, rows: Rows) -> None:
        """The answer to VoicemailUsersList."""
        for row in rows:
            new, old = text(row, "NewMessageCount"), text(row, "OldMessageCount")
            self._mailbox(text(row, "VoiceMailbox"), text(row, "VMContext"), new, old)
        self.changed()

    def take_contacts(self, number: str, contacts: dict[str, Item]) -> None:
        """The contacts of a phone by their ids, each with uri, status, rtt (microseconds) and user_agent, as text."""
        self.contacts[number] = {
            id: {
                "uri": found["uri"],
                "status": found["status"],
                "latency": latency(found["rtt"], found["status"]),
                "user_agent": found["user_agent"] or None,
            }
            for id, found in contacts.items()
        }
        self._mark("phones", number)
        self.changed()

    def take_codec(self, uid: str, codec: str) -> None:
        """The codec of a channel, as CHANNEL(audionativeformat) gives it: (ulaw)."""
        channel = self.channels.get(uid)
        if channel:
            channel.codec = codec.strip("()")[:LONGEST_TEXT]
            self._mark("phones", channel.endpoint)
            self.changed()

    def take_extension(self, uid: str, exten: str) -> None:
        """What a channel has dialled, for one that was there before the service."""
        channel = self.channels.get(uid)
        if channel and exten and not channel.exten:
            channel.exten = exten[:LONGEST_TEXT]
            self._touch(channel)
            self.changed()

    # What belongs together

    def _component(self, start: str) -> set[str]:
        """The channels of the same call: of one origin, one dialled by the other, ends of one Local, or in one bridge.

        An agent who has logged in waits in a call of his own, and belongs to a caller's while they are in one bridge:
        then Asterisk gives all of them the Linkedid of the login, one caller after the other.
        """
        found, todo = {start}, [start]
        while todo:
            channel = self.channels[todo.pop()]
            near: set[str] = set()
            if channel.bridge and self.bridges.get(channel.bridge, "talk") == "talk":
                near |= self._members[channel.bridge]
            if not channel.agent:
                near |= self._dials.get(channel.uid, set())
                near |= {uid for uid in self._origins[channel.origin] if not self.channels[uid].agent}
                near |= self._pairs.get(channel.pair, set())
                if channel.dialler:
                    near.add(channel.dialler)
            near -= found
            found |= near
            todo += near
        return found

    def _regroup(self) -> None:
        done: set[str] = set()
        moved, self._moved = self._moved, set()
        for start in sorted(moved & self.channels.keys()):
            if start not in done:
                group = self._component(start)
                done |= group
                self._assign(group)

    def _assign(self, group: set[str]) -> None:
        calls = {self.calls[self.channels[uid].call] for uid in group if self.channels[uid].call in self.calls}
        anchor = self._elect(group)
        if anchor.agent:  # whose caller has gone waits in a call of his own again
            owners = [call for call in calls if call.anchor == anchor.uid]
        else:
            owners = [call for call in calls if call.anchor in group and not self.channels[call.anchor].agent]
            owners = owners or [call for call in calls if call.anchor not in self.channels]
        if owners:
            call = min(owners, key=self._rank)
            if call.anchor not in group or caller_rank(self.channels[call.anchor]) > caller_rank(anchor):
                call.anchor = anchor.uid
        else:
            id = anchor.origin
            while id in self.calls:
                id = anchor.uid if id == anchor.origin else id + "+"
            call = self.calls[id] = Call(id, anchor, self.at)
        for uid in group:
            channel = self.channels[uid]
            if channel.call != call.id:
                self._out_of_call(channel)
                channel.call = call.id
                call.channels.add(uid)
        self._mark("calls", call.id)

    def _rank(self, call: Call) -> tuple[bool, datetime, str]:
        anchor = self.channels.get(call.anchor)
        return bool(anchor and anchor.inner), call.began, call.id

    def _elect(self, group: set[str]) -> Channel:
        """The caller's channel, the oldest if several may be."""
        channels = (self.channels[uid] for uid in group)
        return min(channels, key=lambda channel: (caller_rank(channel), channel.began, channel.uid))

    # What goes out

    def _mark(self, topic: str, id: str) -> None:
        self._dirty[topic].add(id)

    def _mark_all(self) -> None:
        self._moved |= self.channels.keys()
        for topic, ids in (
            ("calls", self.calls),
            ("phones", self.config.phones),
            ("queues", self.config.queues),
            ("agents", self.config.agents),
            ("conferences", self.config.conferences),
            ("voicemail", self.config.mailboxes),
        ):
            self._dirty[topic].update(ids)

    def flush(self) -> list[Change]:
        """What has changed since the last call, each item once."""
        self._regroup()
        changes = []
        for topic, build in BUILDERS:
            dirty, published = self._dirty[topic], self.published[topic]
            while dirty:
                id = dirty.pop()
                item = build(self, id)
                old = published.get(id)
                if item == old:
                    continue
                if item is None:
                    del published[id]
                    self._since.pop((topic, id), None)
                else:
                    published[id] = item
                if topic == "calls":
                    self._mark_parties(id, old, item)
                changes.append(Change(topic, id, item))
        return changes

    def new_day(self) -> None:
        """The counts of today begin anew."""
        self._dirty["queues"].update(self.config.queues)
        self.changed()

    def items(self, topic: str) -> list[Item]:
        """The items of a topic as they were last given."""
        return list(self.published[topic].values())

    def _mark_parties(self, id: str, *items: Item | None) -> None:
        """What shows a call: phones, agents, queues of members, conferences."""
        numbers = set()
        for item in items:
            for name in (item or {}).get("channels", ()):
                found = re.match(r"PJSIP/(.+)-[0-9a-f]{8}", name)
                numbers.add(found[1] if found else "")
            for person in ("caller", "answered_by"):
                numbers.add(((item or {}).get(person) or {}).get("number", ""))
            if item and item["queue"] in self.waiting:
                self._mark("queues", item["queue"])
        for number in numbers:
            self._mark_number(number)

    def _mark_number(self, number: str) -> None:
        """A phone or an agent, and the queues of which he is a member."""
        if number in self.by_phone:
            self._mark("phones", number)
        if number in self.config.agents:
            self._mark("agents", number)
        for queue, members in self.members.items():
            if any(member["number"] == number for member in members.values()):
                self._mark("queues", queue)

    def _since_state(self, key: tuple[str, str], state: str) -> str | None:
        """Since when something is in a state; None for one that it had when it was first seen."""
        old = self._since.get(key)
        if not old or old[0] != state:
            self._since[key] = old = (state, timestamp(self.at) if old else None)
        return old[1]

    def _person(self, number: str, name: str = "") -> Item:
        return {"number": number, "name": self.names.get(number) or name}

    def _party(self, channel: Channel) -> Item:
        """Who is at a channel."""
        number = channel.agent or (channel.endpoint if channel.endpoint in self.by_phone else channel.number)
        return self._person(number, channel.caller_name)

    def _talks(self, channel: Channel) -> bool:
        bridged = channel.bridge and self.bridges.get(channel.bridge, "talk") == "talk"
        return channel.state == UP and bool(bridged or channel.dialled)

    def _call(self, id: str) -> Item | None:
        call = self.calls.get(id)
        if not call:
            return None
        channels = sorted(
            (self.channels[uid] for uid in call.channels), key=lambda channel: (channel.began, channel.uid)
        )
        real = [channel for channel in channels if not channel.inner]
        if not real:
            return None
        caller = self.channels[call.anchor]
        others = [channel for channel in real if channel is not caller]
        talkers = [channel for channel in others if self._talks(channel)]
        joined = [channel.conference or "" for channel in real if self.bridges.get(channel.bridge) == "conference"]
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
            parked = self.bridges.get(caller.bridge) == "hold" and not caller.agent
            state = "held" if parked else "service"
        if state in ("talking", "conference", "held") and not call.talked:
            found = id not in self.published["calls"] and not caller.up  # it was there before the service
            call.talked, call.answered = True, None if found else call.touched
        elif state == "service":
            call.answered = call.answered or caller.up
        elif not call.talked:
            call.answered = None
        number = caller.exten or (self._party(others[0])["number"] if others else "")
        callee = self._person(number)
        for other in others:
            if not callee["name"] and self._party(other)["number"] == number:
                callee = self._party(other)
        return {
            "id": id,
            "began": timestamp(call.began),
            "answered": timestamp(call.answered) if call.answered else None,
            "state": state,
            "caller": self._party(caller),
            "callee": callee if number else None,
            "answered_by": self._party(talkers[-1]) if state in ("talking", "held") and talkers else None,
            "queue": call.queue or self.queue_of_number.get(number),
            "conference": next(filter(None, joined), None),
            "channels": [channel.name for channel in real],
        }

    def _phone(self, number: str) -> Item | None:
        if number not in self.by_phone:
            return None
        channels = [self.channels[uid] for uid in sorted(self.by_phone[number])]
        contacts = list(self.contacts[number].values())
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
        item = self.published["calls"].get(shown[0].call) if shown else None
        return {
            "id": number,
            "name": self.names.get(number, ""),
            "registered": bool(contacts),
            "state": state,
            "contacts": [shown_contact(contact) for contact in contacts],
            "codec": next((channel.codec for channel in (*live, *channels) if channel.codec), None),
            "call": item["id"] if item else None,
            "webrtc": self.config.phones[number],
            "since": self._since_state(("phones", number), state),
        }

    def _talks_to(self, uid: str) -> Item | None:
        """Who is at the other end of a channel's call, while they talk."""
        channel = self.channels.get(uid)
        item = self.published["calls"].get(channel.call) if channel else None
        if not channel or not item or item["state"] not in ("talking", "held"):
            return None
        if self.calls[channel.call].anchor == uid:
            return item["answered_by"]
        return item["caller"] if self._talks(channel) else None

    def _queue(self, name: str) -> Item | None:
        if name not in self.waiting:
            return None
        number = self.config.queues[name]
        waiting = []
        for position, entry in enumerate(self.waiting[name], 1):
            channel = self.channels.get(entry.uid)
            person = self._party(channel) if channel else self._person(entry.number, entry.name)
            call = self.published["calls"].get(channel.call) if channel else None
            waiting.append(
                {"position": position, **person, "since": timestamp(entry.since), "call": call["id"] if call else None}
            )
        members = []
        for interface, member in sorted(self.members[name].items()):
            members.append(self._shown_member((name, interface), member))
        answered, abandoned = self.today.counts(name)
        return {
            "id": name,
            "name": self.names.get(name) or self.names.get(number) or name,
            "number": number,
            "waiting": waiting,
            "members": members,
            "answered": answered,
            "abandoned": abandoned,
            "longest_wait_since": min((entry["since"] for entry in waiting), default=None),
        }

    def _shown_member(self, key: tuple[str, str], member: Item) -> Item:
        number, state = member["number"], member["state"]
        # Asterisk says "in use" of an agent who is called, and "unavailable" for some seconds after a login.
        if member["agent"] and state != "offline":
            state = self._agent_state(number, key[1]).replace("logged_off", "offline")
        if member["paused"] and state == "idle":
            state = "paused"
        agent = self.agent_channels.get(number, "")
        uids = [agent] if member["agent"] else sorted(self.by_phone.get(number, ()))
        return {
            **{name: value for name, value in member.items() if name != "agent"},
            "state": state,
            "since": self._since_state(key, state),
            "caller": next(filter(None, map(self._talks_to, uids)), None),
        }

    def _agent_state(self, number: str, interface: str) -> str:
        """An agent's state; `interface` is what queues call."""
        uid = self.agent_channels.get(number)
        if not uid:
            return "logged_off"
        if self._talks_to(uid):
            return "talking"
        called = (self.channels[local] for local in self._called.get(interface, ()))
        return "ringing" if any(channel.state != UP and channel.dialled for channel in called) else "idle"

    def _agent(self, number: str) -> Item | None:
        if number not in self.config.agents:
            return None
        state, uid = self._agent_state(number, f"Local/{number}@agents"), self.agent_channels.get(number, "")
        return {
            "id": number,
            "name": self.config.agents[number] or self.names.get(number, ""),
            "state": state,
            "since": self._since_state(("agents", number), state),
            "caller": self._talks_to(uid),
            "queues": sorted(
                name
                for name, members in self.members.items()
                if any(member["number"] == number for member in members.values())
            ),
        }

    def _conference(self, number: str) -> Item | None:
        if number not in self.conferences:
            return None
        conference = sorted(self.conferences[number].values(), key=lambda found: (found["since"], found["channel"].uid))
        return {
            "id": number,
            "participants": [
                {
                    **self._party(found["channel"]),
                    "since": found["since"],
                    "muted": found["muted"],
                    "talking": found["talking"],
                }
                for found in conference
            ],
            "since": conference[0]["since"] if conference else None,
        }

    def _mailbox_item(self, number: str) -> Item | None:
        if number not in self.voicemail:
            return None
        name = self.names.get(number) or self.names.get(number.partition("@")[0], "")
        return {"id": number, "name": name, **self.voicemail[number]}


Handler = Callable[[Model, str, Fields], None]
HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("Newchannel", "Newstate", "NewCallerid", "NewConnectedLine"), Model._on_channel),
    "Hangup": Model._on_hangup,
    "Rename": Model._on_rename,
    "DialBegin": Model._on_dial,
    **dict.fromkeys(("Hold", "Unhold"), Model._on_hold),
    **dict.fromkeys(("BridgeCreate", "BridgeEnter", "BridgeLeave", "BridgeDestroy"), Model._on_bridge),
    "BlindTransfer": Model._on_transfer,
    **dict.fromkeys(("QueueCallerJoin", "QueueCallerLeave", "QueueCallerAbandon"), Model._on_queue_caller),
    **dict.fromkeys(
        ("QueueMemberStatus", "QueueMemberAdded", "QueueMemberPause", "QueueMemberRemoved"), Model._on_member
    ),
    **dict.fromkeys(("AgentCalled", "AgentConnect"), Model._on_agent_called),
    **dict.fromkeys(("AgentLogin", "AgentLogoff"), Model._on_agent),
    "ContactStatus": Model._on_contact,
    **dict.fromkeys(
        (
            "ConfbridgeJoin",
            "ConfbridgeLeave",
            "ConfbridgeEnd",
            "ConfbridgeTalking",
            "ConfbridgeMute",
            "ConfbridgeUnmute",
        ),
        Model._on_conference,
    ),
    "MessageWaiting": Model._on_voicemail,
}
FIRST.add("list")
BUILDERS: tuple[tuple[str, Callable[[Model, str], Item | None]], ...] = (
    ("calls", Model._call),
    ("phones", Model._phone),
    ("queues", Model._queue),
    ("agents", Model._agent),
    ("conferences", Model._conference),
    ("voicemail", Model._mailbox_item),
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


def caller_rank(channel: Channel) -> tuple[bool, bool, bool]:
    """Whose channel is less likely the caller's: an inner one, an agent's, one that was dialled."""
    return channel.inner, bool(channel.agent), channel.dialled


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


def drop(index: dict[str, set[str]], key: str, uid: str) -> None:
    """Take an entry from an index of sets."""
    found = index.get(key)
    if found:
        found.discard(uid)
        if not found:
            del index[key]
