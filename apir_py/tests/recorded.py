"""Events and lists as Asterisk 18.2.0 and 22 send them, made short, and an exchange that sends them in order.

`Calls` keeps the truth: `rows` is what the lists say at any moment.
"""

from __future__ import annotations

from datetime import datetime, timezone

from apir_py.event import Event

AT = datetime(2026, 1, 31, 8, 15, tzinfo=timezone.utc)
HOLDING = {"BridgeTechnology": "holding_bridge", "BridgeType": "base", "BridgeCreator": "AgentPool"}
BASIC = {"BridgeTechnology": "simple_bridge", "BridgeType": "basic", "BridgeCreator": "<unknown>"}
CONFERENCE = {"BridgeTechnology": "softmix", "BridgeType": "base", "BridgeCreator": "ConfBridge"}
STATES = {"0": "Down", "4": "Ring", "5": "Ringing", "6": "Up"}


class Pbx:
    """An exchange. Each method does what happens there, and sends its events to `send`, which a test may replace."""

    def __init__(self, send=lambda event: None) -> None:
        """Nothing happens yet."""
        self.send_to = send
        self.at = AT
        self.count = 0
        self.channels: dict[str, dict[str, str]] = {}
        self.bridges: dict[str, dict[str, str]] = {}
        self.queues: dict[str, dict[str, dict]] = {"sales": {"members": {}, "waiting": []}}
        self.conferences: dict[str, dict[str, dict[str, str]]] = {}
        self.mailboxes: dict[str, tuple[int, int]] = {}

    def send(self, name: str, *parts: dict[str, str], **more: str) -> None:
        """Send an event."""
        fields = {"Privilege": "call,all", "SystemName": "pbx"}
        for part in parts:
            fields.update(part)
        self.send_to(Event(name, {**fields, **more}, self.at))

    @staticmethod
    def shown(channel: dict[str, str], prefix: str = "") -> dict[str, str]:
        """A channel as events show it."""
        return {prefix + key: value for key, value in channel.items() if key[0].isupper()}

    def new(
        self, name: str, number: str, exten: str = "", state: str = "4", linked: str = "", caller_name: str = ""
    ) -> str:
        """A new channel; gives its Uniqueid."""
        self.count += 1
        uid = f"pbx-1795687107.{self.count}"
        self.channels[uid] = {
            "Channel": f"{name}-{self.count:08x}" if name.startswith("PJSIP") else name,
            "ChannelState": state,
            "ChannelStateDesc": STATES[state],
            "CallerIDNum": number,
            "CallerIDName": caller_name or "<unknown>",
            "ConnectedLineNum": "<unknown>",
            "ConnectedLineName": "<unknown>",
            "Context": "from-internal",
            "Exten": exten,
            "Priority": "1",
            "Uniqueid": uid,
            "Linkedid": linked or uid,
            "application": "",
            "bridge": "",
            "dnid": exten,
        }
        self.send("Newchannel", self.shown(self.channels[uid]))
        return uid

    def state(self, uid: str, state: str) -> None:
        """A channel is in another state."""
        self.channels[uid].update(ChannelState=state, ChannelStateDesc=STATES[state])
        self.send("Newstate", self.shown(self.channels[uid]))

    def dial(self, caller: str, called: str) -> None:
        """A channel dials another one."""
        self.channels[called]["application"] = "AppDial"
        self.send("DialBegin", self.shown(self.channels[caller]), self.shown(self.channels[called], "Dest"))

    def gosub(self, uid: str) -> None:
        """The channel is in a subroutine of the dialplan, whose extension is s; no event says so."""
        self.channels[uid].update(Exten="s", Context="ring-phone")

    def enter(self, bridge: str, *uids: str, kind: dict[str, str] = BASIC) -> None:
        """Channels enter a bridge; that of two parties gives all the oldest Linkedid."""
        self.bridges.setdefault(bridge, {"BridgeUniqueid": bridge, "BridgeName": "<unknown>", **kind})
        for uid in uids:
            if self.channels[uid]["bridge"] != bridge:
                self.leave(uid)
            self.channels[uid]["bridge"] = bridge
            inside = [channel for channel in self.channels.values() if channel["bridge"] == bridge]
            if kind is BASIC:
                oldest = min((channel["Linkedid"] for channel in inside), key=lambda linked: int(linked.split(".")[1]))
                for channel in inside:
                    channel["Linkedid"] = oldest
            self.send("BridgeEnter", self.bridges[bridge], self.shown(self.channels[uid]))

    def leave(self, uid: str) -> None:
        """A channel leaves its bridge, which goes with the last one."""
        bridge = self.channels[uid]["bridge"]
        if not bridge:
            return
        self.channels[uid]["bridge"] = ""
        self.send("BridgeLeave", self.bridges[bridge], self.shown(self.channels[uid]))
        if not any(channel["bridge"] == bridge for channel in self.channels.values()):
            self.send("BridgeDestroy", self.bridges.pop(bridge))

    def hang_up(self, *uids: str) -> None:
        """Channels are gone."""
        for uid in uids:
            self.leave(uid)
            self.send("Hangup", self.shown(self.channels.pop(uid)), Cause="16")

    def talk(self, caller: str, called: str) -> None:
        """A dialled channel answers, and the caller's with it."""
        for uid in (called, caller):
            if self.channels[uid]["ChannelState"] != "6":
                self.state(uid, "6")
        self.enter(f"bridge-{called}", called, caller)

    def call(self, caller: str = "6001", number: str = "6002", answered: bool = True) -> tuple[str, str]:
        """A phone calls another one."""
        a = self.new(f"PJSIP/{caller}", caller, number)
        self.gosub(a)
        b = self.new(f"PJSIP/{number}", number, "", "0", linked=a)
        self.dial(a, b)
        self.state(b, "5")
        if answered:
            self.talk(a, b)
        return a, b

    def member(self, number: str, status: str = "1", event: str = "QueueMemberStatus", **more: str) -> None:
        """The state of an agent as a member of the queue."""
        self.queues["sales"]["members"][number] = member = {
            "Queue": "sales",
            "Interface": f"Local/{number}@agents",
            "StateInterface": f"Agent:{number}",
            "CallsTaken": "0",
            "LastCall": "0",
            "LastPause": "0",
            "Status": status,
            "Paused": "0",
            "PausedReason": "",
            **more,
        }
        self.send(event, {**member, "MemberName": "Agente"})

    def log_in(self, number: str) -> str:
        """An agent logs in; gives his channel."""
        uid = self.new(f"PJSIP/{number}", number, "7000", "6")
        self.gosub(uid)
        self.channels[uid].update(application="AgentLogin", data=number)
        self.enter("agents", uid, kind=HOLDING)
        self.send("AgentLogin", self.shown(self.channels[uid]), Agent=number)
        self.member(number)
        return uid

    def join(self, caller: str) -> str:
        """A phone calls the queue and waits."""
        uid = self.new(f"PJSIP/{caller}", caller, "8001")
        self.state(uid, "6")
        self.gosub(uid)
        line = self.queues["sales"]["waiting"]
        line.append(uid)
        where = {"Queue": "sales", "Position": str(len(line)), "Count": str(len(line))}
        self.send("QueueCallerJoin", self.shown(self.channels[uid]), where)
        return uid

    def unqueue(self, uid: str, abandoned: bool = False) -> None:
        """A caller leaves the queue."""
        line = self.queues["sales"]["waiting"]
        line.remove(uid)
        where = {"Queue": "sales", "Position": "1", "Count": str(len(line))}
        if abandoned:
            self.send("QueueCallerAbandon", self.shown(self.channels[uid]), where)
        self.send("QueueCallerLeave", self.shown(self.channels[uid]), where)

    def ring_agent(self, caller: str, number: str) -> tuple[str, str]:
        """The queue calls an agent through a Local channel."""
        linked = self.channels[caller]["Linkedid"]
        name = f"Local/{number}@agents-{self.count:08x}"
        one = self.new(f"{name};1", number, "", "0", linked=linked)
        two = self.new(f"{name};2", number, number, "4", linked=linked)
        self.dial(caller, one)
        self.state(one, "5")
        self.member(number, "2")
        return one, two

    def agent_answers(
        self, caller: str, agent: str, ends: tuple[str, str], number: str, optimized: bool = True
    ) -> None:
        """The agent takes the call; the Local channel is optimized away."""
        one, two = ends
        self.leave(agent)
        self.state(two, "6")
        self.enter(f"agent-{two}", two, agent)
        self.state(one, "6")
        self.unqueue(caller)
        connect = {"Queue": "sales", "Interface": f"Local/{number}@agents", "HoldTime": "3"}
        self.send("AgentConnect", self.shown(self.channels[caller]), self.shown(self.channels[one], "Dest"), connect)
        self.enter(f"queue-{one}", one, caller)
        if not optimized:
            return
        self.leave(one)
        self.enter(f"agent-{two}", caller)
        self.leave(two)
        self.hang_up(one, two)

    def agent_waits(self, agent: str) -> None:
        """The agent is free again."""
        self.leave(agent)
        self.enter("agents", agent, kind=HOLDING)

    def meet(self, number: str, conference: str = "6000") -> str:
        """A phone enters a conference."""
        uid = self.new(f"PJSIP/{number}", number, conference, "6")
        self.gosub(uid)
        self.enter(f"conference-{conference}", uid, kind={**CONFERENCE, "BridgeName": conference})
        self.conferences.setdefault(conference, {})[uid] = {"Muted": "No", "Talking": "No"}
        self.send("ConfbridgeJoin", self.shown(self.channels[uid]), Conference=conference, Muted="No", Admin="No")
        return uid

    def part(self, uid: str, conference: str = "6000") -> None:
        """A participant goes."""
        self.leave(uid)
        del self.conferences[conference][uid]
        self.send("ConfbridgeLeave", self.shown(self.channels[uid]), Conference=conference)
        if not self.conferences[conference]:
            self.send("ConfbridgeEnd", Conference=conference)
            del self.conferences[conference]
        self.hang_up(uid)

    # Lists

    def bridge_rows(self) -> list[dict[str, str]]:
        """The rows of BridgeList."""
        return [{"Event": "BridgeListItem", **bridge} for bridge in self.bridges.values()]

    def channel_rows(self) -> list[dict[str, str]]:
        """The rows of CoreShowChannels."""
        return [
            {
                "Event": "CoreShowChannel",
                **self.shown(channel),
                "Application": channel["application"],
                "ApplicationData": channel.get("data", ""),
                "Duration": "00:01:40",
                "BridgeId": channel["bridge"],
            }
            for channel in self.channels.values()
        ]

    def queue_rows(self) -> list[dict[str, str]]:
        """The rows of QueueStatus."""
        rows = [{"Event": "QueueParams", "Queue": "sales"}]
        for member in self.queues["sales"]["members"].values():
            found = {key: value for key, value in member.items() if key != "Interface"}
            rows.append({"Event": "QueueMember", **found, "Name": "Agente", "Location": member["Interface"]})
        for position, uid in enumerate(self.queues["sales"]["waiting"], 1):
            entry = {"Event": "QueueEntry", "Queue": "sales", "Position": str(position), "Wait": "40"}
            rows.append({**entry, "Uniqueid": uid, "CallerIDNum": self.channels[uid]["CallerIDNum"]})
        return rows

    def conference_rows(self, conference: str) -> list[dict[str, str]]:
        """The rows of ConfbridgeList."""
        return [
            {
                "Event": "ConfbridgeList",
                "Conference": conference,
                **self.shown(self.channels[uid]),
                **who,
                "AnsweredTime": "9",
            }
            for uid, who in self.conferences.get(conference, {}).items()
        ]

    def tell(self, model) -> None:
        """Give a model all lists, that of channels again if it lacks any, as the service does."""
        model.take_bridges(self.bridge_rows())
        model.take_channels(self.channel_rows())
        if model.lacking:
            model.take_channels(self.channel_rows())
        model.take_queue("sales", self.queue_rows())
        model.take_conference("6000", self.conference_rows("6000"))
        for uid in list(model.wanted_extensions):
            model.take_extension(uid, self.channels[uid]["dnid"])
        model.wanted_extensions.clear()
