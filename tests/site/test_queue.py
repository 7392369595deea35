"""Queue ColaUno on 8001: agents log in on 7000, phones join on 7001 and leave on 7002."""

from __future__ import annotations

import re

import pytest
from sipp import within


@pytest.fixture
def shown(on_lab):
    """A function that returns `queue show`; the queue has no phones before and after the test."""

    def show() -> str:
        return on_lab("asterisk -rx 'queue show ColaUno'")

    def empty() -> None:
        for number in ("6001", "6002", "6003"):
            on_lab(f"asterisk -rx 'queue remove member PJSIP/{number} from ColaUno'")

    empty()
    yield show
    empty()


def join(telephones, number: str, code: str = "7001"):
    """Dial a feature code that the exchange answers with a beep."""
    line = telephones.dial(number, code, talking=False)
    assert line.hears("beep") and line.ended(), line


def test_logged_in_agent_gets_the_next_caller(telephones, records, on_lab):
    agent = telephones.dial("6001", "7000", talking=False)
    assert agent.hears("agent-loginok"), agent
    assert within(
        9, lambda: re.search("^6001 .*NOT_INUSE", on_lab("asterisk -rx 'agent show online'"), re.MULTILINE)
    ), agent
    caller = telephones.dial("6002", "8001", talking=False)
    assert agent.hears("beep", seconds=12), agent
    agent.media.press("#")
    agent.media.talking = caller.media.talking = True
    assert agent.hears_party(caller.media) and caller.hears_party(agent.media), (agent, caller)
    caller.hang_up()
    assert not agent.ended(2), "the agent stays logged in"
    agent.hang_up()
    # The agent's call has a record for each of its bridges, all with its uniqueid; the caller's call has one.
    rows = [(row["uniqueid"], row["src"], row["dst"], row["disposition"]) for row in records(2)]
    assert sorted(row[1:] for row in set(rows)) == [("6001", "7000", "ANSWERED"), ("6002", "8001", "ANSWERED")], rows
    assert sum(row[2] == "8001" for row in rows) == 1, rows


def test_phone_joins_gets_a_call_and_leaves(telephones, shown, records):
    phone = telephones.answering("6003")
    join(telephones, "6003")
    assert "PJSIP/6003" in shown()
    caller = telephones.dial("6001", "8001", talking=False)
    assert phone.talks() and caller.hears_party(phone.media), caller
    caller.hang_up()
    join(telephones, "6003", "7002")
    assert "PJSIP/6003" not in shown()
    calls = {row["uniqueid"]: (row["src"], row["dst"]) for row in records(3)}
    assert sorted(calls.values()) == [("6001", "8001"), ("6003", "7001"), ("6003", "7002")]


def test_all_members_ring_at_once(telephones, shown):
    phones = [telephones.ringing(number) for number in ("6002", "6003")]
    for number in ("6002", "6003"):
        join(telephones, number)
    caller = telephones.dial("6001", "8001", talking=False)
    assert within(8, lambda: all(phone.invited for phone in phones)), caller
    assert caller.audible(2) > 0.02, "the caller waits in silence"


def check_empty_queue(telephones, on_lab):
    """Check that a caller hears that nobody is available and is hung up on, without leaving a message."""
    before = on_lab("find /var/spool/asterisk/voicemail -name 'msg*' | sort")
    caller = telephones.dial("6001", "8001", talking=False)
    assert caller.hears("vm-nobodyavail"), caller
    assert caller.ended(), caller
    assert on_lab("find /var/spool/asterisk/voicemail -name 'msg*' | sort") == before


def test_empty_queue_is_announced_and_ends_the_call(telephones, shown, on_lab, records):
    check_empty_queue(telephones, on_lab)
    assert [(row["src"], row["dst"], row["disposition"]) for row in records()] == [("6001", "8001", "ANSWERED")]


def test_unregistered_member_does_not_hold_the_queue(telephones, shown, on_lab):
    phone = telephones.answering("6003")
    join(telephones, "6003")
    phone.leave()
    assert within(
        5, lambda: "PJSIP/6003" not in shown() or "Unavailable" in shown().split("PJSIP/6003")[1].split("\n")[0]
    )
    check_empty_queue(telephones, on_lab)
    back = telephones.answering("6003")
    assert within(6, lambda: "PJSIP/6003" not in shown()), "it is a member again without having joined"
    assert back.invited == 0
