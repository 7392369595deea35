"""One call is one row of the view calls, whichever way it goes, with the records that Asterisk really leaves."""

from __future__ import annotations

import re
import time

import pytest
from handset import Desk
from sipp import within

TALK = 1  # seconds of each part of a call


@pytest.fixture
def desk(lab):
    made = Desk(lab)
    yield made
    made.close()


@pytest.fixture
def calls(database):
    """A function that waits for so many new calls; returns them as tuples, the oldest first."""

    def read() -> list[tuple]:
        with database.cursor() as cursor:
            cursor.execute(
                "SELECT caller, dialled, through, answered_by, transferred_to, result, waiting, talking FROM calls"
                " WHERE linkedid IN (SELECT uniqueid FROM cdr WHERE id > %s) ORDER BY at, linkedid",
                (last,),
            )
            return cursor.fetchall()

    def new(count: int = 1) -> list[tuple]:
        within(8, lambda: len(read()) >= count)
        time.sleep(0.3)
        return read()

    with database.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(id), 0) FROM cdr")
        [(last,)] = cursor.fetchall()
    return new


@pytest.fixture
def queue(on_lab):
    """A function that adds phones to the queue, for one test."""
    added = []

    def add(*numbers: str) -> None:
        added.extend(numbers)
        on_lab("; ".join(f"asterisk -rx 'queue add member PJSIP/{number} to ColaUno'" for number in numbers))

    yield add
    on_lab("; ".join(f"asterisk -rx 'queue remove member PJSIP/{number} from ColaUno'" for number in added))


def near(found: tuple, waiting: int, talking: int) -> bool:
    """Whether the seconds are right, as records count them."""
    return abs(found[6] - waiting) <= 1 and abs(found[7] - talking) <= 1


def transferred(desk: Desk, phone, number: str, other=None) -> None:
    """Have a phone transfer its call, and leave it as phones do."""
    asked = phone.transfer(number, other)
    assert desk.until(lambda: asked.final) and asked.final.status == 202, asked.final
    desk.talk(0.4)
    for each in [phone, *([other] if other else [])]:
        if each.call and not each.call.ended:
            left = each.hang_up()
            assert desk.until(lambda left=left: left.final)
        each.call = None


def test_answered_call_is_one(desk, calls):
    caller, _callee = desk.phone("6001"), desk.phone("6002")
    desk.dial(caller, "6002")
    desk.talk(2 * TALK)
    desk.hang_up(caller)
    (found,) = calls()
    assert found[:6] == ("6001", "6002", "", "6002", None, "ANSWERED") and near(found, 0, 2), found


def test_call_of_a_busy_phone_is_one_with_its_mailbox(desk, calls):
    caller, _callee = desk.phone("6001"), desk.phone("6002", "486")
    desk.dial(caller, "6002")
    desk.talk(TALK)
    desk.hang_up(caller)
    (found,) = calls()
    assert found[:6] == ("6001", "6002", "voicemail 6002", None, None, "VOICEMAIL") and near(found, 0, 0), found


@pytest.mark.parametrize("how", ["the exchange", "the phone (302)"])
def test_forwarded_call_is_one(desk, calls, on_lab, how):
    by_exchange = how == "the exchange"
    caller, called = desk.phone("6001"), desk.phone("6002", "answer" if by_exchange else "6003")
    target = desk.phone("6003", "ring")
    if by_exchange:
        on_lab("asterisk -rx 'database put REDIRECT 6002 6003'")
    try:
        asked = caller.dial("6002")
        assert desk.until(lambda: target.incoming)
        desk.talk(2)
        target.answer()
        assert desk.until(lambda: asked.final) and asked.final.status == 200
        desk.talk(TALK)
        desk.hang_up(caller)
    finally:
        on_lab("asterisk -rx 'database deltree REDIRECT'")
    (found,) = calls()
    assert found[:6] == ("6001", "6002", "forward", "6003", None, "ANSWERED") and near(found, 2, 1), found
    assert called.called == (0 if by_exchange else 1)


def test_two_phones_that_forward_to_each_other_are_one_call(desk, calls):
    caller, _one, _other = desk.phone("6001"), desk.phone("6002", "6003"), desk.phone("6003", "6002")
    desk.dial(caller, "6002")
    desk.talk(TALK)
    desk.hang_up(caller)
    desk.talk(2)
    (found,) = calls()
    assert found[:2] == ("6001", "6002") and found[2].startswith("forward") and found[5] == "VOICEMAIL", found


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_blind_transfer_is_one_call_with_two_answers(desk, calls, records, who):
    caller, callee, third = desk.phone("6001"), desk.phone("6002"), desk.phone("6003")
    desk.dial(caller, "6002")
    desk.talk(TALK)
    transferred(desk, caller if who == "caller" else callee, "6003")
    assert desk.until(lambda: third.call and third.call.confirmed)
    desk.talk(TALK)
    desk.hang_up(third)
    (found,) = calls()
    assert found[:6] == ("6001", "6002", "transfer", "6002", "6003", "ANSWERED") and near(found, 0, 2), found
    # The second talk's record has the second number.
    assert [row["dst"] for row in records(2)] == ["6002", "6003"]


def test_second_transfer_goes_where_it_is_sent(desk, calls, records):
    """What the first left behind neither calls anybody again nor names the record."""
    caller, callee, third = desk.phone("6001"), desk.phone("6002"), desk.phone("6003")
    desk.dial(caller, "6002")
    desk.talk(0.5)
    transferred(desk, callee, "6003")
    assert desk.until(lambda: third.call and third.call.confirmed)
    desk.talk(0.5)
    transferred(desk, third, "6000")
    desk.talk(TALK)
    desk.hang_up(caller)
    (found,) = calls()
    assert found[:6] == ("6001", "6002", "conference 6000, transfer", "6002", "6003", "ANSWERED"), found
    assert [row["dst"] for row in records(3)] == ["6002", "6003", "6000"]
    assert (callee.called, third.called) == (1, 1)


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_attended_transfer_is_a_call_and_its_consultation(desk, calls, who):
    caller, callee, third = desk.phone("6001"), desk.phone("6002"), desk.phone("6003")
    first = caller if who == "caller" else callee
    second = desk.phone(first.user, registered=False)
    desk.dial(caller, "6002")
    desk.talk(TALK)
    desk.dial(second, "6003")
    desk.talk(1.2)
    transferred(desk, first, "6003", second)
    desk.talk(TALK)
    desk.hang_up(third)
    found, consultation = calls(2)
    assert found[:6] == ("6001", "6002", "transfer", "6002", "6003", "ANSWERED") and near(found, 0, 3), found
    assert consultation[:6] == (first.user, "6003", "", "6003", None, "ANSWERED"), consultation


def test_call_of_the_queue_is_one_with_its_wait(desk, calls, queue):
    caller, member, other = desk.phone("6001"), desk.phone("6002", "ring"), desk.phone("6003", "ring")
    queue("6002", "6003")
    desk.dial(caller, "8001")
    assert desk.until(lambda: member.incoming and other.incoming)
    desk.talk(3)
    member.answer()
    desk.talk(TALK)
    desk.hang_up(caller)
    (found,) = calls()
    assert found[:6] == ("6001", "8001", "queue ColaUno", "6002", None, "ANSWERED") and near(found, 3, 1), found


def test_caller_who_leaves_the_queue_is_one_call(desk, calls, queue):
    caller, member = desk.phone("6001"), desk.phone("6002", "ring")
    queue("6002")
    desk.dial(caller, "8001")
    assert desk.until(lambda: member.incoming)
    desk.talk(2)
    desk.hang_up(caller)
    (found,) = calls()
    assert found[:6] == ("6001", "8001", "queue ColaUno", None, None, "ABANDONED") and near(found, 2, 0), found


def test_call_to_an_agent_is_one_apart_from_the_login(telephones, calls, on_lab):
    agent = telephones.dial("6001", "7000", talking=False)
    online = r"^6001 .*NOT_INUSE"
    assert within(12, lambda: re.search(online, on_lab("asterisk -rx 'agent show online'"), re.MULTILINE)), agent
    caller = telephones.dial("6002", "8001", talking=False)
    assert agent.hears("beep", seconds=12), agent
    agent.media.press("#")
    time.sleep(2)
    caller.hang_up()
    (found,) = calls()
    assert found[:6] == ("6002", "8001", "queue ColaUno", "6001", None, "ANSWERED"), found
    agent.hang_up()
    login, found = calls(2)
    assert login[:6] == ("6001", "7000", "", None, None, "SERVICE"), login
    assert found[0] == "6002" and 1 <= found[7] <= 4, found


def test_call_through_the_menu_is_one_with_its_wait(telephones, calls):
    department = telephones.answering("6003")
    caller = telephones.dial("6001", "11888", talking=False)
    began = time.monotonic()
    assert caller.hears("vm-enter-num-to-call", seconds=15, whole=False), caller
    caller.media.press("3")
    assert department.talks(), caller
    waited = time.monotonic() - began
    time.sleep(2)
    caller.hang_up()
    (found,) = calls()
    assert found[:6] == ("6001", "11888", "menu 11888", "6003", None, "ANSWERED"), found
    assert waited - 2 <= found[6] <= waited + 1 and 1 <= found[7] <= 3, (waited, found)


def test_transfer_behind_the_menu_has_the_second_number(telephones, desk, calls, records):
    department, third = desk.phone("6003"), desk.phone("6002")
    caller = telephones.dial("6001", "11888", talking=False)
    assert caller.hears("vm-enter-num-to-call", seconds=15, whole=False), caller
    caller.media.press("3", wait=False)
    assert desk.until(lambda: department.call and department.call.confirmed, 20)
    desk.talk(TALK)
    transferred(desk, department, "6002")
    assert desk.until(lambda: third.call and third.call.confirmed)
    desk.talk(TALK)
    desk.hang_up(third)
    (found,) = calls()
    assert found[:6] == ("6001", "11888", "menu 11888, transfer", "6003", "6002", "ANSWERED"), found
    assert [row["dst"] for row in records(2)] == ["11888", "6002"]


def test_each_participant_of_a_conference_is_a_call(desk, calls):
    first, second = desk.phone("6001"), desk.phone("6002")
    for phone in (first, second):
        desk.dial(phone, "6000")
    desk.talk(2 * TALK)
    for phone in (first, second):
        desk.hang_up(phone)
    found = calls(2)
    assert sorted(row[:6] for row in found) == [
        (number, "6000", "conference 6000", None, None, "CONFERENCE") for number in ("6001", "6002")
    ]


def test_events_service_may_read_the_view_alone(on_lab):
    granted = on_lab(
        "cd / && sudo -u postgres psql -Atc \"SELECT has_table_privilege('asterisk_reader', 'calls', 'SELECT'),"
        " has_table_privilege('asterisk_reader', 'calls', 'INSERT,UPDATE,DELETE')\" asterisk"
    )
    assert granted == "t|f\n"
