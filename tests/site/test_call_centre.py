"""The call centre on 11888, whose menu leads to the phones; test_changes.py has one with fewer attempts."""

from __future__ import annotations

import pytest


def choose(line, keys: str, whole: bool = True) -> None:
    """Wait for the menu, completely or for its start, and press keys."""
    assert line.hears("vm-enter-num-to-call", seconds=15, whole=whole), line
    line.media.press(keys)


@pytest.mark.parametrize(("choice", "number"), [("1", "6001"), ("3", "6003")])
def test_menu_choice_rings_its_department(telephones, records, choice, number):
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


def test_five_wrong_choices_end_the_call(telephones, records):
    caller = telephones.dial("6001", "11888", talking=False)
    for wrong in "04*95":
        choose(caller, wrong + "#" * (wrong == "*"), whole=False)
        assert caller.hears("vm-sorry", seconds=15), (wrong, caller)
    assert caller.hears("vm-goodbye"), caller
    assert caller.ended(), caller
    assert caller.heard().count("vm-sorry") == 5
    assert [(row["src"], row["dst"], row["disposition"]) for row in records()] == [("6001", "11888", "ANSWERED")]


def test_busy_department_is_announced(telephones):
    telephones.refusing("6003")
    caller = telephones.dial("6001", "11888", talking=False)
    choose(caller, "3")
    assert caller.hears("vm-isonphone"), caller
