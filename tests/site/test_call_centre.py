"""The call centre on 11888, whose menu leads to the phones."""

from __future__ import annotations

import pytest


def choose(line, keys: str) -> None:
    """Wait for the menu and press keys."""
    assert line.hears("vm-enter-num-to-call", seconds=15), line
    line.media.press(keys)


@pytest.mark.parametrize(("choice", "number"), [("1", "6001"), ("3", "6003")])
def test_a_choice_reaches_its_department(telephones, records, choice, number):
    department = telephones.answering(number)
    caller = telephones.dial("6002", "11888", talking=False)
    choose(caller, choice)
    assert caller.hears(f"digits/{choice}"), caller
    assert department.talks(), caller
    caller.media.talking = True
    assert caller.hears_party(department.media), caller
    caller.hang_up()
    found = [(row["src"], row["dst"], row["disposition"], row["dstchannel"][:10]) for row in records()]
    assert found == [("6002", "11888", "ANSWERED", f"PJSIP/{number}")]


def test_five_wrong_choices_end_the_call_politely(telephones, records):
    caller = telephones.dial("6001", "11888", talking=False)
    for wrong in "04*95":
        choose(caller, wrong + "#" * (wrong == "*"))
        assert caller.hears("vm-sorry", seconds=15), (wrong, caller)
    assert caller.hears("vm-goodbye"), caller
    assert caller.ended(), caller
    assert caller.heard().count("vm-sorry") == 5
    assert [(row["src"], row["dst"], row["disposition"]) for row in records()] == [("6001", "11888", "ANSWERED")]


def test_the_right_choice_after_four_wrong_ones_is_taken(telephones):
    department = telephones.answering("6002")
    caller = telephones.dial("6001", "11888", talking=False)
    for wrong in "0000":
        choose(caller, wrong)
        assert caller.hears("vm-sorry", seconds=15), caller
    choose(caller, "2")
    assert department.talks() and caller.hears_party(department.media), caller


def test_silence_is_told_off_and_ends_the_call(telephones):
    caller = telephones.dial("6001", "11888", talking=False)
    assert caller.hears("vm-sorry", seconds=15), caller
    assert caller.hears("vm-goodbye", seconds=60), caller
    assert caller.ended(), caller


def test_an_engaged_department_does_not_leave_the_caller_in_silence(telephones):
    telephones.refusing("6003")
    caller = telephones.dial("6001", "11888", talking=False)
    choose(caller, "3")
    assert caller.hears("vm-isonphone"), caller
