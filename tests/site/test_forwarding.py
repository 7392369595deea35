"""Forwarding: *21 sends a phone's calls to another phone, *22 takes that back."""

from __future__ import annotations

import re

import pytest
from sipp import within


@pytest.fixture(autouse=True)
def nothing_forwarded(on_lab):
    """No phone is forwarded before or after a test."""
    forget = "asterisk -rx 'database deltree REDIRECT'"
    on_lab(forget)
    yield
    on_lab(forget)


def forward(telephones, *wanted: tuple[str, str]) -> list:
    """Dial *21 on each phone and enter its number, all at once; gives the lines once the exchange has hung up."""
    lines = [telephones.dial(phone, "*21", talking=False) for phone, _number in wanted]
    for line, (_phone, number) in zip(lines, wanted):
        assert line.hears("vm-enter-num-to-call"), line
        line.media.press(number + "#", wait=False)
    for line in lines:
        assert line.ended(20), line
    return lines


def reached(telephones, caller: str, number: str, phones: dict) -> str | None:
    """Which of these phones a call to a number rings: the first one that does."""
    line = telephones.dial(caller, number, answered=False, talking=False)
    before = {name: phone.invited for name, phone in phones.items()}
    within(4, lambda: any(phone.invited > before[name] for name, phone in phones.items()) or line.over)
    found = [name for name, phone in phones.items() if phone.invited > before[name]]
    line.answered(3)
    line.hang_up()
    return found[0] if found else None


def test_forwarding_is_repeated_kept_over_a_restart_and_cleared(telephones, on_lab, records):
    (line,) = forward(telephones, ("6001", "6003"))
    digits = [name for name in line.heard() if name.startswith("digits/")]
    assert digits == ["digits/6", "digits/0", "digits/0", "digits/3"], line
    assert not {"vm-sorry", "pbx-invalid"} & set(line.heard()), line
    assert [(row["src"], row["dst"], row["disposition"]) for row in records()] == [("6001", "*21", "ANSWERED")]

    phones = {number: telephones.answering(number) for number in ("6001", "6003")}
    assert reached(telephones, "6002", "6001", phones) == "6003"
    on_lab("systemctl restart asterisk", seconds=60)
    phones = {number: telephones.answering(number) for number in ("6001", "6003")}
    assert reached(telephones, "6002", "6001", phones) == "6003"
    assert reached(telephones, "6002", "6003", phones) == "6003"

    line = telephones.dial("6001", "*22", talking=False)
    assert line.hears("vm-deleted") and line.ended(), line
    assert reached(telephones, "6002", "6001", phones) == "6001"


def test_forwarding_to_oneself_or_to_no_phone_is_refused_aloud(telephones, on_lab):
    numbers = ["6001", "612345678", "6000", "11888", "8001", "*22", "6099", ""]
    for number, line in zip(numbers, forward(telephones, *(("6001", number) for number in numbers))):
        said = "".join(name[-1] for name in line.heard() if name.startswith("digits/"))
        assert said == number.strip("*"), (number, line)
        assert "vm-sorry" in line.heard() and "vm-saved" not in line.heard(), line
    assert re.search(r"^0 results found", on_lab("asterisk -rx 'database show REDIRECT'"), re.MULTILINE)


def test_forwarding_round_a_loop_is_refused_aloud(telephones):
    for line in forward(telephones, ("6001", "6002"), ("6002", "6003")):
        assert "vm-saved" in line.heard(), line
    (line,) = forward(telephones, ("6003", "6001"))
    assert "vm-sorry" in line.heard() and "vm-saved" not in line.heard(), line
    phones = {number: telephones.answering(number) for number in ("6001", "6002", "6003")}
    assert reached(telephones, "6001", "6001", phones) == "6003", "two forwardings in a row are followed"
