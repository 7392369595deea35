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
from typing import TYPE_CHECKING, Any, Callable, Iterable, List, Mapping, Union

from apir_py.channels import UP, Call, Channel, Waiting, drop
from apir_py.event import Event, Fields, timestamp
from apir_py.fields import LONGEST_TEXT, duration, epoch, kind, latency, number_of, text, unescaped
from apir_py.grouping import regroup
from apir_py.items import BUILDERS, TOPICS, Change, Item

if TYPE_CHECKING:
    from apir_py.config import Config
    from apir_py.today import Today

MOST_CHANNELS = 20_000
"""Channels, and bridges, that are kept; beyond it new ones are not, which an exchange that works never reaches."""
MOST_GONE = 1000
"""Channels that have gone and that nothing late brings back."""
LOGGED_ERRORS = 20
HOLD_BELIEVED = timedelta(seconds=5)
"""For so long a Hold is believed although the state of the device, which follows later, says otherwise."""

# ast_device_state, as the member of a queue has it
DEVICE = {"1": "idle", "2": "talking", "3": "talking", "6": "ringing", "7": "ringing", "8": "talking"}
# Events that may tell of a channel for the first time; later ones could bring back one that has gone.
FIRST = {"Newchannel", "Newstate", "DialBegin", "BridgeEnter", "QueueCallerJoin", "ConfbridgeJoin", "AgentLogin"}

log = logging.getLogger(__name__)
Rows = Iterable[Mapping[str, Union[str, List[str]]]]


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
        # Channels by their origin, bridge and pair, and those that a channel dials.
        self.origins: dict[str, set[str]] = {}
        self.bridged: dict[str, set[str]] = {}
        self.pairs: dict[str, set[str]] = {}
        self.dials: dict[str, set[str]] = {}
        self._gone: dict[str, None] = {}  # channels that hung up, the last ones
        self.lacking: set[str] = set()
        self.contacts: dict[str, dict[str, Item]] = {number: {} for number in config.phones}
        self.by_phone: dict[str, set[str]] = {number: set() for number in config.phones}
        self.waiting: dict[str, list[Waiting]] = {name: [] for name in config.queues}
        self.members: dict[str, dict[str, Item]] = {name: {} for name in config.queues}
        self.agent_channels: dict[str, str] = {}
        self.called: dict[str, set[str]] = {}  # Local channels by what a queue calls, as Local/6001@agents
        self.conferences: dict[str, dict[str, Item]] = {number: {} for number in config.conferences}
        self.voicemail: dict[str, Item] = {number: {"new": None, "old": None} for number in config.mailboxes}
        self._since: dict[tuple[str, str], tuple[str, str | None]] = {}  # state of an item, and since when
        self.published: dict[str, dict[str, Item]] = {topic: {} for topic in TOPICS}
        self._dirty: dict[str, set[str]] = {topic: set() for topic in TOPICS}
        self.moved: set[str] = set()  # channels that may now belong to another call
        self.ready = False
        self.at = datetime.now(timezone.utc)
        self.errors = 0
        self.wants: Callable[[], None] = lambda: None
        self.wanted_contacts: set[str] = set()
        self.wanted_codecs: set[str] = set()
        self.wanted_extensions: set[str] = set()
        self.mark_all()

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
        if self.moved or any(self._dirty.values()):
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
            self.origins.setdefault(channel.origin, set()).add(uid)
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
            self.pairs.setdefault(channel.pair, set()).add(channel.uid)
            self.called.setdefault(channel.pair.rpartition("-")[0], set()).add(channel.uid)
        if channel.endpoint in self.by_phone:
            self.by_phone[channel.endpoint].add(channel.uid)

    def _unindex(self, channel: Channel) -> None:
        if channel.pair:
            drop(self.pairs, channel.pair, channel.uid)
            drop(self.called, channel.pair.rpartition("-")[0], channel.uid)
        if channel.endpoint in self.by_phone:
            self.by_phone[channel.endpoint].discard(channel.uid)
            self.mark("phones", channel.endpoint)

    def _touch(self, channel: Channel) -> None:
        """Something about the channel has changed, and with it perhaps what belongs to its call."""
        call = self.calls.get(channel.call)
        self.moved.add(channel.uid)
        if channel.endpoint in self.by_phone:
            self.mark("phones", channel.endpoint)
        if channel.pair:
            self._mark_number(channel.pair[6:].partition("@")[0])
        if call:
            call.touched = self.at
            self.moved |= call.channels

    def _remove(self, channel: Channel) -> None:
        uid = channel.uid
        self._touch(channel)
        self._enter(channel, "")
        del self.channels[uid]
        self.moved.discard(uid)
        self._unindex(channel)
        drop(self.origins, channel.origin, uid)
        for called in self.dials.pop(uid, ()):
            self.channels[called].dialler = ""
        drop(self.dials, channel.dialler, uid)
        if channel.queue:
            self._leave_queue(channel.queue, uid)
        if channel.conference in self.conferences:
            self.conferences[channel.conference].pop(uid, None)
            self.mark("conferences", channel.conference)
        if channel.agent and self.agent_channels.get(channel.agent) == uid:
            del self.agent_channels[channel.agent]
            self._mark_number(channel.agent)
        for wanted in (self.wanted_codecs, self.wanted_extensions):
            wanted.discard(uid)
        self.out_of_call(channel)

    def out_of_call(self, channel: Channel) -> None:
        """Take a channel out of its call, which ends with the last one."""
        call = self.calls.get(channel.call)
        channel.call = ""
        if call:
            call.channels.discard(channel.uid)
            self.mark("calls", call.id)
            if not call.channels:
                del self.calls[call.id]

    def _enter(self, channel: Channel, bridge: str) -> None:
        if channel.bridge != bridge:
            drop(self.bridged, channel.bridge, channel.uid)
            channel.bridge = bridge
            if bridge:
                self.bridged.setdefault(bridge, set()).add(channel.uid)

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
                drop(self.dials, called.dialler, called.uid)
                called.dialler = caller.uid
                self.dials.setdefault(caller.uid, set()).add(called.uid)

    def _on_hold(self, name: str, fields: Fields) -> None:
        channel = self._channel(name, fields)
        if channel:
            channel.held, channel.held_at = name == "Hold", self.at

    def _on_bridge(self, name: str, fields: Fields) -> None:
        bridge = text(fields, "BridgeUniqueid")
        if name == "BridgeDestroy":
            self.bridges.pop(bridge, None)
            for uid in self.bridged.pop(bridge, ()):
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
            for uid in self.bridged.get(bridge, ()):
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
                self.mark("queues", queue)
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
            self.mark("queues", queue)

    def _leave_queue(self, queue: str, uid: str) -> None:
        if queue in self.waiting:
            line = self.waiting[queue]
            line[:] = [waiting for waiting in line if waiting.uid != uid]
            self.mark("queues", queue)

    def _on_member(self, name: str, fields: Fields) -> None:
        queue = text(fields, "Queue")
        interface = text(fields, "Interface") or text(fields, "Location")
        if queue not in self.members or not interface:
            return
        if name == "QueueMemberRemoved":
            gone = self.members[queue].pop(interface, None)
            self._since.pop((queue, interface), None)
            self.mark("agents", gone["number"] if gone else "")
        else:
            member = self.members[queue][interface] = self._member(interface, fields)
            self.mark("agents", member["number"])
        self.mark("queues", queue)

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
            self.mark("queues", text(fields, "Queue"))
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
                self.mark("phones", number)
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
        self.mark("conferences", number)
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
            self.mark("voicemail", id)

    # Lists

    def take_bridges(self, rows: Rows) -> None:
        """The answer to BridgeList."""
        self.bridges = {text(row, "BridgeUniqueid"): kind(row) for row in rows}
        self.moved |= self.channels.keys()
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
        self.moved |= self.channels.keys()
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
            self.mark("agents", member["number"])
        self.members[queue] = members
        self.mark("queues", queue)
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
        self.mark("conferences", number)
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
        self.mark("phones", number)
        self.changed()

    def take_codec(self, uid: str, codec: str) -> None:
        """The codec of a channel, as CHANNEL(audionativeformat) gives it: (ulaw)."""
        channel = self.channels.get(uid)
        if channel:
            channel.codec = codec.strip("()")[:LONGEST_TEXT]
            self.mark("phones", channel.endpoint)
            self.changed()

    def take_extension(self, uid: str, exten: str) -> None:
        """What a channel has dialled, for one that was there before the service."""
        channel = self.channels.get(uid)
        if channel and exten and not channel.exten:
            channel.exten = exten[:LONGEST_TEXT]
            self._touch(channel)
            self.changed()

    # What goes out

    def mark(self, topic: str, id: str) -> None:
        """An item may have changed."""
        self._dirty[topic].add(id)

    def mark_all(self) -> None:
        """Every item may have changed."""
        self.moved |= self.channels.keys()
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
        regroup(self)
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
                self.mark("queues", item["queue"])
        for number in numbers:
            self._mark_number(number)

    def _mark_number(self, number: str) -> None:
        """A phone or an agent, and the queues of which he is a member."""
        if number in self.by_phone:
            self.mark("phones", number)
        if number in self.config.agents:
            self.mark("agents", number)
        for queue, members in self.members.items():
            if any(member["number"] == number for member in members.values()):
                self.mark("queues", queue)

    def since_state(self, key: tuple[str, str], state: str) -> str | None:
        """Since when something is in a state; None for one that it had when it was first seen."""
        old = self._since.get(key)
        if not old or old[0] != state:
            self._since[key] = old = (state, timestamp(self.at) if old else None)
        return old[1]


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
