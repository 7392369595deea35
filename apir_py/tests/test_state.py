"""The model of the exchange: what each kind of call looks like, and that lists make good whatever was missed."""

from __future__ import annotations

import copy
import gc
import random
import types
from datetime import timedelta

import pytest
from apir_py.event import Event, Filter
from apir_py.items import TOPICS, may_see, shown_contact
from apir_py.state import Model
from apir_py.today import Today
from recorded import AT, BASIC, HOLDING, Pbx

ANA, LUIS, EVA = (
    {"number": number, "name": name} for number, name in (("6001", "Ana"), ("6002", "Luis"), ("6003", ""))
)
CONFIG = types.SimpleNamespace(
    names={"6001": "Ana", "6002": "Luis", "8001": "Ventas"},
    phones={"6001": False, "6002": False, "6003": True},
    agents={"6001": "Ana"},
    queues={"sales": "8001"},
    conferences=["6000"],
    mailboxes=["6001", "6002@other"],
)


class Followed:
    """A model that follows an exchange."""

    def __init__(self) -> None:
        """See the class."""
        self.model = Model(CONFIG, Today("", CONFIG.queues))
        self.pbx = Pbx(self.model.apply)
        self.model.flush()

    def items(self, topic: str) -> dict:
        """The items of a topic by their ids."""
        self.model.flush()
        return {item["id"]: item for item in self.model.items(topic)}

    def call(self) -> dict:
        """The only call."""
        (found,) = self.items("calls").values()
        return found

    def phone(self, number: str) -> dict:
        """A phone."""
        return self.items("phones")[number]


@pytest.fixture
def followed():
    """A model that follows an exchange."""
    return Followed()


def test_call_between_phones(followed):
    pbx = followed.pbx
    a, b = pbx.call(answered=False)
    call = followed.call()
    assert (call["state"], call["caller"], call["callee"], call["answered_by"]) == ("ringing", ANA, LUIS, None)
    assert (call["began"], call["answered"]) == ("2026-01-31T08:15:00.000Z", None)
    assert followed.phone("6002")["state"] == "ringing"
    pbx.at += timedelta(seconds=4)
    pbx.talk(a, b)
    call = followed.call()
    assert (call["id"], call["state"], call["answered_by"]) == (a, "talking", LUIS)
    assert call["answered"] == "2026-01-31T08:15:04.000Z"
    assert call["channels"] == ["PJSIP/6001-00000001", "PJSIP/6002-00000002"]
    phone = followed.phone("6002")
    assert (phone["state"], phone["call"], phone["since"]) == ("talking", a, "2026-01-31T08:15:04.000Z")
    pbx.hang_up(b, a)
    assert followed.items("calls") == {}
    assert followed.phone("6002")["state"] == "offline"


def test_held_call(followed):
    pbx = followed.pbx
    a, _ = pbx.call()
    pbx.send("Hold", pbx.shown(pbx.channels[a]))
    assert followed.call()["state"] == "held"
    assert [followed.phone(number)["state"] for number in ("6001", "6002")] == ["held", "talking"]
    pbx.send("Unhold", pbx.shown(pbx.channels[a]))
    assert followed.call()["state"] == "talking"


def test_forwarded_call_names_who_was_dialled_and_who_answered(followed):
    pbx = followed.pbx
    a = pbx.new("PJSIP/6001", "6001", "6002")
    b = pbx.new("PJSIP/6003", "6003", "", "0", linked=a)
    pbx.dial(a, b)
    pbx.talk(a, b)
    call = followed.call()
    assert (call["callee"], call["answered_by"]) == (LUIS, EVA)


def test_voicemail_is_a_service(followed):
    pbx = followed.pbx
    a = pbx.new("PJSIP/6002", "6002", "6001")
    pbx.state(a, "6")
    call = followed.call()
    assert (call["state"], call["callee"], call["answered_by"]) == ("service", ANA, None)
    assert call["answered"] == "2026-01-31T08:15:00.000Z"
    pbx.send("MessageWaiting", Mailbox="6001@from-internal", Waiting="1", New="2", Old="1")
    pbx.send("MessageWaiting", Mailbox="6002@other", Waiting="1", New="5", Old="0")
    boxes = followed.items("voicemail")
    assert boxes["6001"] == {"id": "6001", "name": "Ana", "new": 2, "old": 1}
    assert boxes["6002@other"] == {"id": "6002@other", "name": "Luis", "new": 5, "old": 0}


def test_queue_call_from_joining_to_its_end(followed):
    pbx = followed.pbx
    agent = pbx.log_in("6001")
    assert followed.call()["state"] == "service"
    assert followed.items("agents")["6001"]["state"] == "idle"
    pbx.member("6001", "5")  # as Asterisk says at first
    assert followed.items("queues")["sales"]["members"][0]["state"] == "offline"
    pbx.member("6001")
    assert followed.items("queues")["sales"]["members"][0]["state"] == "idle"
    caller = pbx.join("6002")
    queue, call = followed.items("queues")["sales"], followed.items("calls")[caller]
    assert (call["state"], call["answered"], call["queue"]) == ("waiting", None, "sales")
    assert (call["callee"], queue["name"]) == ({"number": "8001", "name": "Ventas"}, "Ventas")
    at = "2026-01-31T08:15:00.000Z"
    assert queue["waiting"] == [{"position": 1, **LUIS, "since": at, "call": caller}]
    assert queue["longest_wait_since"] == at
    ends = pbx.ring_agent(caller, "6001")
    assert followed.items("queues")["sales"]["members"][0]["state"] == "ringing"
    assert followed.items("agents")["6001"]["state"] == "ringing"
    pbx.at += timedelta(seconds=9)
    pbx.agent_answers(caller, agent, ends, "6001")
    call = followed.call()
    assert (call["id"], call["state"], call["queue"], call["answered_by"]) == (caller, "talking", "sales", ANA)
    assert call["answered"] == "2026-01-31T08:15:09.000Z"
    (member,) = followed.items("queues")["sales"]["members"]
    assert (member["state"], member["caller"], member["since"]) == ("talking", LUIS, "2026-01-31T08:15:09.000Z")
    assert followed.items("agents")["6001"]["caller"] == LUIS
    queue = followed.items("queues")["sales"]
    assert (queue["waiting"], queue["answered"], queue["abandoned"]) == ([], 1, 0)
    pbx.hang_up(caller)
    pbx.agent_waits(agent)
    assert followed.call()["id"] == agent
    assert (followed.call()["state"], followed.items("agents")["6001"]["state"]) == ("service", "idle")


def test_second_caller_of_an_agent_is_another_call(followed):
    """Asterisk gives both callers the Linkedid of the agent's login."""
    pbx = followed.pbx
    agent = pbx.log_in("6001")
    first = pbx.join("6002")
    pbx.agent_answers(first, agent, pbx.ring_agent(first, "6001"), "6001")
    pbx.leave(first)  # transferred to 6003, who rings
    pbx.agent_waits(agent)
    rings = pbx.new("PJSIP/6003", "6003", "", "0", linked=pbx.channels[first]["Linkedid"])
    pbx.dial(first, rings)
    calls = followed.items("calls")
    assert {id: call["state"] for id, call in calls.items()} == {first: "ringing", agent: "service"}
    second = pbx.join("6003")
    pbx.agent_answers(second, agent, pbx.ring_agent(second, "6001"), "6001")
    calls = followed.items("calls")
    assert set(calls) == {first, second}
    assert (calls[second]["caller"], calls[second]["answered_by"]) == (EVA, ANA)
    assert calls[first]["channels"] == [pbx.channels[uid]["Channel"] for uid in (first, rings)]


def test_member_who_calls_the_queue_serves_nobody(followed):
    pbx = followed.pbx
    agent = pbx.log_in("6001")
    pbx.member("6002", "5")
    caller = pbx.join("6002")
    pbx.agent_answers(caller, agent, pbx.ring_agent(caller, "6001"), "6001")
    members = followed.items("queues")["sales"]["members"]
    assert [(member["state"], member["caller"]) for member in members] == [("talking", LUIS), ("offline", None)]


def test_agent_who_is_being_greeted_is_not_logged_in_yet(followed):
    pbx = Pbx()
    uid = pbx.new("PJSIP/6001", "6001", "7000", "6")
    pbx.channels[uid].update(application="AgentLogin", data="6001")
    pbx.tell(followed.model)
    assert followed.items("agents")["6001"]["state"] == "logged_off"
    pbx.enter("agents", uid, kind=HOLDING)
    pbx.tell(followed.model)
    assert followed.items("agents")["6001"]["state"] == "idle"


def test_call_through_a_local_channel_that_stays_is_one():
    """Its ends have the Linkedids of caller and agent then."""
    followed, found = Followed(), Followed()
    pbx = followed.pbx
    agent, caller = pbx.log_in("6001"), pbx.join("6002")
    pbx.agent_answers(caller, agent, pbx.ring_agent(caller, "6001"), "6001", optimized=False)
    assert len({channel["Linkedid"] for channel in pbx.channels.values()}) == 2
    pbx.tell(found.model)
    for call in (followed.call(), found.call()):
        assert (call["state"], call["caller"], call["answered_by"]) == ("talking", LUIS, ANA)


def test_caller_who_gives_up_is_abandoned(followed):
    pbx = followed.pbx
    caller = pbx.join("6002")
    pbx.unqueue(caller, abandoned=True)
    pbx.hang_up(caller)
    queue = followed.items("queues")["sales"]
    assert (queue["waiting"], queue["answered"], queue["abandoned"]) == ([], 0, 1)


def test_paused_member(followed):
    followed.pbx.log_in("6001")
    followed.pbx.member("6001", event="QueueMemberPause", Paused="1", PausedReason="café", LastPause="1769847300")
    (member,) = followed.items("queues")["sales"]["members"]
    assert (member["state"], member["paused"], member["reason"]) == ("paused", True, "café")
    assert member["paused_since"] == "2026-01-31T08:15:00.000Z"
    followed.pbx.send("QueueMemberRemoved", Queue="sales", Interface="Local/6001@agents")
    assert followed.items("queues")["sales"]["members"] == []
    assert followed.items("agents")["6001"]["queues"] == []


def test_conference_participants_are_calls_of_their_own(followed):
    pbx = followed.pbx
    first, second = pbx.meet("6001"), pbx.meet("6003")
    calls = followed.items("calls")
    assert {call["state"] for call in calls.values()} == {"conference"}
    assert [calls[uid]["conference"] for uid in (first, second)] == ["6000", "6000"]
    pbx.send("ConfbridgeTalking", pbx.shown(pbx.channels[second]), Conference="6000", TalkingStatus="on")
    pbx.send("ConfbridgeMute", pbx.shown(pbx.channels[first]), Conference="6000")
    conference = followed.items("conferences")["6000"]
    assert [(who["number"], who["muted"], who["talking"]) for who in conference["participants"]] == [
        ("6001", True, False),
        ("6003", False, True),
    ]
    pbx.part(first)
    pbx.part(second)
    assert followed.items("conferences")["6000"] == {"id": "6000", "participants": [], "since": None}


def test_attended_transfer_leaves_one_call(followed):
    pbx = followed.pbx
    a, b = pbx.call("6001", "6002")
    pbx.send("Hold", pbx.shown(pbx.channels[a]))
    a2, c = pbx.call("6001", "6003")
    assert {call["state"] for call in followed.items("calls").values()} == {"held", "talking"}
    pbx.leave(b)
    pbx.enter(pbx.channels[c]["bridge"], b)
    pbx.hang_up(a2, a)
    call = followed.call()
    assert {call["caller"]["number"], call["answered_by"]["number"]} == {"6002", "6003"}
    assert call["state"] == "talking"


def test_blind_transfer_names_the_new_number(followed):
    pbx = followed.pbx
    a, b = pbx.call("6001", "6002")
    pbx.send(
        "BlindTransfer",
        pbx.shown(pbx.channels[b], "Transferer"),
        pbx.shown(pbx.channels[a], "Transferee"),
        Extension="6003",
        Result="Success",
    )
    pbx.hang_up(b)
    c = pbx.new("PJSIP/6003", "6003", "", "0", linked=a)
    pbx.dial(a, c)
    call = followed.call()
    assert (call["id"], call["state"], call["caller"], call["callee"]) == (a, "ringing", ANA, EVA)
    pbx.talk(a, c)
    assert followed.call()["answered_by"] == EVA


def test_inner_channels_alone_are_no_call(followed):
    pbx = followed.pbx
    one = pbx.new("Local/6001@queue-watches-00000001;1", "6001", "s", "6")
    pbx.new("Local/6001@queue-watches-00000001;2", "6001", "6001", "6", linked=one)
    assert followed.items("calls") == {}


def test_contacts(followed):
    model = followed.model
    model.apply(Event("ContactStatus", {"AOR": "6003", "URI": "x", "ContactStatus": "NonQualified"}, AT))
    assert model.wanted_contacts == {"6003"}
    uri = "sip:6003@192.0.2.7:41000;transport=ws;ob"
    found = {"uri": uri, "status": "Reachable", "rtt": "12345", "user_agent": "JsSIP 3.13"}
    model.take_contacts("6003", {"6003;@1": found})
    phone = followed.phone("6003")
    shown = {"address": "192.0.2.7:41000", "transport": "ws", "latency_ms": 12.345, "user_agent": "JsSIP 3.13"}
    assert (phone["registered"], phone["state"], phone["webrtc"], phone["contacts"]) == (True, "idle", True, [shown])
    model.apply(Event("ContactStatus", {"AOR": "6003", "URI": uri, "ContactStatus": "Unreachable"}, AT))
    phone = followed.phone("6003")
    assert (phone["registered"], phone["state"], phone["contacts"][0]["latency_ms"]) == (True, "offline", None)
    model.apply(Event("ContactStatus", {"AOR": "6003", "URI": uri, "ContactStatus": "Removed"}, AT))
    assert (followed.phone("6003")["registered"], followed.phone("6003")["contacts"]) == (False, [])


@pytest.mark.parametrize(
    ("uri", "address", "transport"),
    [
        ("sip:6001@192.0.2.7:5060", "192.0.2.7:5060", "udp"),
        ("sips:6001@[2001:db8::7]:5061;transport=TLS", "[2001:db8::7]:5061", "tls"),
        ("sip:pbx.example.com;x", "pbx.example.com", "udp"),
        ("<script>", "", "udp"),
    ],
)
def test_address_of_a_contact(uri, address, transport):
    shown = shown_contact({"uri": uri, "latency": None, "user_agent": None})
    assert (shown["address"], shown["transport"]) == (address, transport)


def test_codec_is_that_of_the_call(followed):
    a, b = followed.pbx.call()
    assert followed.model.wanted_codecs == {a, b}
    followed.model.take_codec(a, "(ulaw)")
    assert [followed.phone(number)["codec"] for number in ("6001", "6002")] == ["ulaw", None]
    followed.pbx.hang_up(b, a)
    assert followed.phone("6001")["codec"] is None


def test_hostile_names_are_text(followed):
    pbx = followed.pbx
    a = pbx.new("PJSIP/trunk", "666", "6001", caller_name=r"<script>alert(\"1\")</script>\n\"x\\")
    assert followed.call()["caller"]["name"] == '<script>alert("1")</script>\n"x\\'
    pbx.channels[a]["CallerIDName"] = "x" * 65536
    pbx.state(a, "6")
    assert followed.call()["caller"]["name"] == "x" * 200


def test_event_without_sense_is_ignored(followed):
    for name in ("Newchannel", "BridgeEnter", "QueueCallerJoin", "ConfbridgeJoin", "DialBegin", "Hangup", "Rename"):
        for fields in ({}, {"Uniqueid": ["1", "2"], "Channel": ["x", "y"]}, {"Queue": "sales", "Position": "-1"}):
            followed.model.apply(Event(name, fields, AT))
    assert followed.items("queues")["sales"]["waiting"] == []


def test_list_finds_what_was_there_before(followed):
    pbx = Pbx()
    agent = pbx.log_in("6001")
    a, _ = pbx.call("6002", "6003")
    caller, waiting = pbx.join("6004"), pbx.join("6005")
    pbx.agent_answers(caller, agent, pbx.ring_agent(caller, "6001"), "6001")
    met = pbx.meet("6006")
    pbx.tell(followed.model)
    calls = followed.items("calls")
    assert (calls[a]["state"], calls[a]["caller"], calls[a]["callee"]) == ("talking", LUIS, EVA)
    assert calls[a]["answered"] is None
    assert (calls[waiting]["state"], calls[waiting]["queue"]) == ("waiting", "sales")
    assert (calls[met]["state"], calls[met]["conference"]) == ("conference", "6000")
    (busy,) = set(calls) - {a, waiting, met}
    assert (calls[busy]["caller"]["number"], calls[busy]["answered_by"], calls[busy]["queue"]) == ("6004", ANA, "sales")
    (member,) = followed.items("queues")["sales"]["members"]
    assert (member["state"], member["caller"]["number"]) == ("talking", "6004")
    assert followed.items("queues")["sales"]["waiting"][0]["position"] == 1


def test_missed_hangup_is_made_good(followed):
    pbx = followed.pbx
    a, b = pbx.call()
    waiting, met = pbx.join("6003"), pbx.meet("6005")
    followed.items("calls")
    for uid in (a, b, waiting, met):
        del pbx.channels[uid]
    pbx.bridges.clear()
    pbx.queues["sales"]["waiting"].clear()
    pbx.conferences.clear()
    pbx.tell(followed.model)
    assert followed.items("calls") == {}
    assert followed.items("queues")["sales"]["waiting"] == []
    assert followed.items("conferences")["6000"]["participants"] == []
    assert {phone["state"] for phone in followed.items("phones").values()} == {"offline"}
    assert not followed.model.bridged and not followed.model.origins and not followed.model.dials


def test_missed_leaving_is_made_good(followed):
    pbx = followed.pbx
    met, waiting = pbx.meet("6003"), pbx.join("6004")
    pbx.send_to = lambda event: None
    pbx.leave(met)
    pbx.conferences.clear()
    pbx.unqueue(waiting)
    pbx.tell(followed.model)
    assert followed.items("conferences")["6000"]["participants"] == []
    assert followed.items("queues")["sales"]["waiting"] == []
    assert {call["state"] for call in followed.items("calls").values()} == {"service"}


def test_event_after_a_hangup_brings_nothing_back(followed):
    pbx = followed.pbx
    a, b = pbx.call()
    late = pbx.shown(pbx.channels[b])
    pbx.hang_up(b, a)
    pbx.send("Newstate", late)
    pbx.send("BridgeEnter", {"BridgeUniqueid": "late", **BASIC}, late)
    assert followed.items("calls") == {}


def scene(pbx: Pbx, chance: random.Random) -> None:
    """Things that happen, one of them at a time."""
    calls: list[tuple[str, ...]] = []
    agent = pbx.log_in("6001") if chance.random() < 0.7 else None
    talks: str | None = None
    for _ in range(chance.randrange(3, 25)):
        what = chance.randrange(8)
        if what == 0:
            calls.append(pbx.call(*chance.sample(["6002", "6003", "6004"], 2), answered=chance.random() < 0.5))
        elif what == 1 and calls:
            pbx.hang_up(*reversed(calls.pop(chance.randrange(len(calls)))))
        elif what == 2:
            pbx.join(chance.choice(["6002", "6003", "6009"]))
        elif what == 3 and pbx.queues["sales"]["waiting"]:
            uid = pbx.queues["sales"]["waiting"][0]
            pbx.unqueue(uid, abandoned=True)
            pbx.hang_up(uid)
        elif what == 4 and agent and not talks and pbx.queues["sales"]["waiting"]:
            talks = pbx.queues["sales"]["waiting"][0]
            pbx.agent_answers(talks, agent, pbx.ring_agent(talks, "6001"), "6001")
        elif what == 5 and agent and talks:
            pbx.hang_up(talks)
            pbx.agent_waits(agent)
            pbx.member("6001")
            talks = None
        elif what == 6:
            pbx.meet(chance.choice(["6003", "6004", "6005"]))
        elif what == 7 and pbx.conferences.get("6000"):
            pbx.part(next(iter(pbx.conferences["6000"])))


def listed(followed: Followed) -> dict:
    """What lists can say: everything but times, and ids, which depend on what was seen first."""
    calls = sorted(
        (call["state"], call["caller"]["number"], (call["answered_by"] or {}).get("number"), sorted(call["channels"]))
        for call in followed.items("calls").values()
    )
    queue = followed.items("queues")["sales"]
    return {
        "calls": calls,
        "phones": {phone["id"]: phone["state"] for phone in followed.items("phones").values()},
        "waiting": [(who["position"], who["number"]) for who in queue["waiting"]],
        "members": [(who["number"], who["state"], (who["caller"] or {}).get("number")) for who in queue["members"]],
        "agents": [(who["id"], who["state"], who["caller"]) for who in followed.items("agents").values()],
        "conferences": sorted(who["number"] for who in followed.items("conferences")["6000"]["participants"]),
    }


@pytest.mark.parametrize("seed", range(60))
def test_lists_make_good_what_was_lost_or_out_of_order(seed):
    """Followed event by event, by lists alone, and by lists after a part of the events in any order: all agree."""
    chance = random.Random(seed)
    whole, alone, broken = Followed(), Followed(), Followed()
    events: list[Event] = []

    def send(event: Event) -> None:
        events.append(event)
        whole.model.apply(event)

    pbx = Pbx(send)
    scene(pbx, chance)
    some = [event for event in events if chance.random() < 0.7]
    for start in range(0, len(some), 5):
        part = some[start : start + 5]
        chance.shuffle(part)
        for event in part:
            broken.model.apply(event)
            broken.model.flush()
    pbx.tell(alone.model)
    pbx.tell(broken.model)
    assert listed(alone) == listed(whole)
    assert listed(broken) == listed(alone)


@pytest.mark.parametrize("seed", range(20))
def test_lists_ahead_of_the_events_lose_nothing(seed):
    """Lists come ahead of events that they know already, as from Asterisk, which tells of a change after making it."""
    chance = random.Random(seed)
    whole, late = Followed(), Followed()
    events: list[Event] = []
    lists: list[Pbx] = []

    def send(event: Event) -> None:
        events.append(event)
        whole.model.apply(event)
        lists.append(copy.deepcopy(pbx, {id(pbx.send_to): pbx.send_to}))

    pbx = Pbx(send)
    scene(pbx, chance)
    ahead = 0
    for place, event in enumerate(events):
        if chance.random() < 0.2:
            ahead = max(ahead, min(place + chance.randrange(12), len(events) - 1))
            lists[ahead].tell(late.model)
            late.model.flush()
        late.model.apply(event)
    assert listed(late) == listed(whole)


def test_channel_is_gone_when_two_lists_lack_it(followed):
    pbx, model = followed.pbx, followed.model
    a, b = pbx.call()
    rows = pbx.channel_rows()
    for without, calls in ((rows[:1], 1), (rows, 1), (rows[:1], 1), ([], 1), ([], 0)):
        model.take_channels(without)
        assert len(followed.items("calls")) == calls
    pbx.state(a, "6")  # it was there all the same
    assert followed.call()["channels"] == ["PJSIP/6001-00000001"]


def test_list_brings_back_nothing_that_hung_up(followed):
    pbx = followed.pbx
    a, b = pbx.call()
    rows = pbx.channel_rows()
    pbx.hang_up(b, a)
    followed.model.take_channels(rows)
    assert followed.items("calls") == {}


def test_events_while_a_list_is_made_are_kept():
    """A list is at its place among the events: what follows it holds."""
    followed = Followed()
    pbx = Pbx()
    a, b = pbx.call()
    bridges, rows = pbx.bridge_rows(), pbx.channel_rows()
    followed.model.take_bridges(bridges)
    followed.model.take_channels(rows)
    pbx.send_to = followed.model.apply
    pbx.hang_up(b, a)
    pbx.call("6003", "6002", answered=False)
    assert [call["caller"] for call in followed.items("calls").values()] == [EVA]


def test_ten_thousand_calls_leave_nothing(followed):
    pbx, model = followed.pbx, followed.model
    agent = pbx.log_in("6001")

    def thousand() -> int:
        for number in range(1000):
            if number % 10:
                a, b = pbx.call("6002", "6003")
                pbx.hang_up(b, a)
            else:
                caller = pbx.join("6004")
                pbx.agent_answers(caller, agent, pbx.ring_agent(caller, "6001"), "6001")
                pbx.hang_up(caller)
                pbx.agent_waits(agent)
            model.flush()
            model.wanted_codecs.clear()
        return sum(len(gc.get_referents(value)) for value in vars(model).values())

    before = thousand()
    assert [thousand() for _ in range(9)] == [before] * 9
    assert set(model.channels) == {agent}
    assert len(followed.items("calls")) == 1


def test_flush_gives_each_item_once_and_nothing_unchanged(followed):
    model = followed.model
    a, b = followed.pbx.call()
    changes = model.flush()
    assert sorted((change.topic, change.id) for change in changes) == [
        ("calls", a),
        ("phones", "6001"),
        ("phones", "6002"),
    ]
    followed.pbx.send("Newstate", followed.pbx.shown(followed.pbx.channels[a]))
    assert model.flush() == []
    followed.pbx.hang_up(b, a)
    assert [change.item for change in model.flush() if change.topic == "calls"] == [None]


@pytest.mark.parametrize(
    ("sees", "topics"),
    [
        (Filter(), set(TOPICS)),
        (Filter(events=["Queue*", "Agent*"]), {"queues", "agents"}),
        (Filter(numbers=["6002"]), {"calls", "phones", "voicemail"}),
        (Filter(numbers=["8001"]), {"queues"}),
        (Filter(channels=["PJSIP/6001"]), {"calls", "phones"}),
        (Filter(numbers=["6000"]), {"conferences"}),
    ],
)
def test_filter_decides_which_items_a_user_sees(followed, sees, topics):
    followed.pbx.call()
    seen = {topic for topic in TOPICS for item in followed.items(topic).values() if may_see(sees, topic, item)}
    assert seen == topics


def test_hold_is_found_by_the_device(followed):
    pbx = Pbx()
    pbx.call()
    pbx.tell(followed.model)
    followed.model.at += timedelta(seconds=10)
    followed.model.take_hold("6001", "ONHOLD")
    assert (followed.call()["state"], followed.phone("6001")["state"]) == ("held", "held")
    followed.model.at += timedelta(seconds=10)
    followed.model.take_hold("6001", "INUSE")
    assert followed.call()["state"] == "talking"


def test_parked_caller_is_held(followed):
    pbx = followed.pbx
    a, b = pbx.call()
    pbx.hang_up(b)
    pbx.enter("lot", a, kind={**HOLDING, "BridgeCreator": "Parking"})
    assert followed.call()["state"] == "held"
