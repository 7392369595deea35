"""Callers with unknown numbers, unusual display names, or endless key presses."""

from __future__ import annotations

import pytest
from sipp import within

NAMES = {
    "a shell command": b'"${SHELL(touch /tmp/labredes-owned)}"',
    "quotes": b'"a\\"b\'; DROP TABLE cdr; --"',
    "300 bytes": b'"' + bytes(0x80 + number * 37 % 128 for number in range(300)) + b'"',
}


def test_unknown_number_is_announced_and_rejected(telephones, records):
    numbers = ["5999", "6009", "9", "*99", "612345678", "nobody", "6002&PJSIP"]
    callers = [telephones.dial("6001", number, answered=False, talking=False) for number in numbers]
    assert within(10, lambda: all(caller.open() or caller.over for caller in callers)), callers
    for caller in callers:
        assert caller.hears("pbx-invalid"), caller
    assert within(5, lambda: all(caller.over for caller in callers)), callers
    assert {caller.code for caller in callers} == {404}, callers
    found = sorted((row["src"], row["dst"], row["billsec"]) for row in records(len(numbers)))
    assert found == sorted(("6001", number, 0) for number in numbers)


@pytest.mark.parametrize("name", NAMES)
def test_odd_caller_name_breaks_neither_call_nor_record(telephones, records, on_lab, name):
    callee = telephones.answering("6002")
    caller = telephones.dial("6001", "6002", display=NAMES[name])
    assert callee.talks() and caller.hears_party(callee.media), caller
    assert '"Paquito Txokolatero" <sip:6001@' in callee.callers()[-1], "the caller ID is not the configured one"
    caller.hang_up()
    found = [(row["src"], row["dst"], row["disposition"], row["clid"]) for row in records()]
    assert found == [("6001", "6002", "ANSWERED", '"Paquito Txokolatero" <6001>')]
    assert on_lab("ls /tmp/labredes-owned 2>&1 || true").count("No such file") == 1


@pytest.mark.parametrize("name", [b'"open', b'"6003" <sip:6003@x>, '])
def test_malformed_from_does_not_disturb_other_calls(telephones, name):
    broken = telephones.dial("6001", "6002", answered=False, display=name)
    assert not within(1, lambda: broken.code == 200), broken
    assert telephones.dial("6001", "6000").hears("conf-onlyperson")


def test_endless_key_presses_end_in_a_hangup(telephones):
    callers = [telephones.dial("6001", number, talking=False) for number in ("6500", "11888", "*21")]
    for caller in callers:
        caller.media.press("4567890*#" * 250, seconds=0.04, pause=0.02, wait=False)
    for caller in callers:
        assert caller.ended(60), caller
