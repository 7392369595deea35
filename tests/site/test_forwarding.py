"""Forwarding: *21 forwards a phone's calls to another phone, *22 ends that."""

from __future__ import annotations

import re

import pytest
from sipp import within


@pytest.fixture(autouse=True)
def no_forwarding(on_lab):
    """No phone is forwarded before or after a test."""
    clear = "asterisk -rx 'database deltree REDIRECT'"
    on_lab(clear)
    yield
    on_lab(clear)


def forward(telephones, *wanted: tuple[str, str]) -> list:
    """Dial *21 on each phone and enter its number, all at once; returns the lines after the exchange has hung up."""
    lines = [telephones.dial(phone, "*21", talking=False) for phone, _number in wanted]
    for line, (_phone, number) in zip(lines, wanted, strict=True):
        assert line.hears("vm-enter-num-to-call"), line
        line.media.press(number + "#", wait=False)
    for line in lines:
        assert line.ended(20), line
    return lines


def rung_phone(telephones, caller: str, number: str, phones: dict) -> str | None:
    """The first of these phones that a call to a number rings, or None."""
    line = telephones.dial(caller, number, answered=False, talking=False)
    before = {name: phone.invited for name, phone in phones.items()}
    within(4, lambda: any(phone.invited > before[name] for name, phone in phones.items()) or line.over)
    found = [name for name, phone in phones.items() if phone.invited > before[name]]
    line.answered(3)
    line.hang_up()
    return found[0] if found else None


def test_forwarding_survives_a_restart_until_cleared(telephones, on_lab, records):
    (line,) = forward(telephones, ("6001", "6003"))
    digits = [name for name in line.heard() if name.startswith("digits/")]
    assert digits == ["digits/6", "digits/0", "digits/0", "digits/3"], line
    assert not {"vm-sorry", "pbx-invalid"} & set(line.heard()), line
    assert [(row["src"], row["dst"], row["disposition"]) for row in records()] == [("6001", "*21", "ANSWERED")]

    phones = {number: telephones.answering(number) for number in ("6001", "6003")}
    assert rung_phone(telephones, "6002", "6001", phones) == "6003"
    on_lab("systemctl restart asterisk", seconds=60)
    phones = {number: telephones.answering(number) for number in ("6001", "6003")}
    assert rung_phone(telephones, "6002", "6001", phones) == "6003"
    assert rung_phone(telephones, "6002", "6003", phones) == "6003"

    line = telephones.dial("6001", "*22", talking=False)
    assert line.hears("vm-deleted") and line.ended(), line
    assert rung_phone(telephones, "6002", "6001", phones) == "6001"


def test_forwarding_to_an_invalid_target_is_refused(telephones, on_lab):
    numbers = ["6001", "612345678", "6000", "11888", "8001", "*22", "6099", ""]
    lines = forward(telephones, *(("6001", number) for number in numbers))
    for number, line in zip(numbers, lines, strict=True):
        read_back = "".join(name[-1] for name in line.heard() if name.startswith("digits/"))
        assert read_back == number.strip("*"), (number, line)
        assert "vm-sorry" in line.heard() and "vm-saved" not in line.heard(), line
    assert re.search(r"^0 results found", on_lab("asterisk -rx 'database show REDIRECT'"), re.MULTILINE)


def test_forwarding_loop_is_refused(telephones):
    for line in forward(telephones, ("6001", "6002"), ("6002", "6003")):
        assert "vm-saved" in line.heard(), line
    (line,) = forward(telephones, ("6003", "6001"))
    assert "vm-sorry" in line.heard() and "vm-saved" not in line.heard(), line
    phones = {number: telephones.answering(number) for number in ("6001", "6002", "6003")}
    assert rung_phone(telephones, "6001", "6001", phones) == "6003", "two forwardings in a row are followed"
