"""Callers who dial wrong numbers, give themselves odd names, or press keys without end."""

from __future__ import annotations

import pytest
from sipp import within

NAMES = {
    "a shell command": b'"${SHELL(touch /tmp/labredes-owned)}"',
    "quotes": b'"a\\"b\'; DROP TABLE cdr; --"',
    "300 bytes": b'"' + bytes(0x80 + number * 37 % 128 for number in range(300)) + b'"',
}


def test_whoever_dials_an_unknown_number_is_told_so(telephones, records):
    numbers = ["5999", "6004", "9", "*99", "612345678", "nobody", "6002&PJSIP"]
    callers = {number: telephones.dial("6001", number, answered=False, talking=False) for number in numbers}
    for caller in callers.values():
        assert within(5, lambda: caller.open() or caller.over), caller
    for caller in callers.values():
        assert caller.hears("pbx-invalid"), caller
        assert within(5, lambda: caller.over) and caller.code == 404, caller
    found = sorted((row["src"], row["dst"], row["billsec"]) for row in records(len(numbers)))
    assert found == sorted(("6001", number, 0) for number in numbers)


@pytest.mark.parametrize("name", NAMES)
def test_a_callers_name_breaks_neither_the_call_nor_its_record(telephones, records, on_lab, name):
    callee = telephones.answering("6002")
    caller = telephones.dial("6001", "6002", display=NAMES[name])
    assert callee.talks() and caller.hears_party(callee.media), caller
    assert '"Paquito Txokolatero" <sip:6001@' in callee.callers()[-1], "a phone's name is the exchange's"
    caller.hang_up()
    found = [(row["src"], row["dst"], row["disposition"], row["clid"]) for row in records()]
    assert found == [("6001", "6002", "ANSWERED", '"Paquito Txokolatero" <6001>')]
    assert on_lab("ls /tmp/labredes-owned 2>&1 || true").count("No such file") == 1


@pytest.mark.parametrize("name", [b'"open', b'"6003" <sip:6003@x>, '])
def test_a_from_that_is_no_sip_hurts_no_other_call(telephones, name):
    broken = telephones.dial("6001", "6002", answered=False, display=name)
    assert not within(1, lambda: broken.code == 200), broken
    assert telephones.dial("6001", "6000").hears("conf-onlyperson")


def test_keys_without_end_end_in_a_hangup(telephones):
    callers = [telephones.dial("6001", number, talking=False) for number in ("6500", "11888", "*21")]
    for caller in callers:
        caller.media.press("4567890*#" * 250, seconds=0.04, pause=0.02, wait=False)
    for caller in callers:
        assert caller.ended(60), caller
