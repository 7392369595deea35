"""Mailboxes: messages left for phones that nobody answers or that are engaged, and heard again on 6500."""

from __future__ import annotations

import re

import pytest
from sipp import within

SPOOL = "/var/spool/asterisk/voicemail"


@pytest.fixture
def inbox(on_lab):
    """A function that lists the new messages of a mailbox; all mailboxes are emptied before and after the test."""
    empty = f"find {SPOOL} -name 'msg*' -delete"
    on_lab(empty)

    def messages(number: str) -> list[str]:
        return on_lab(f"cd {SPOOL} && ls */{number}/INBOX/msg????.wav 2>/dev/null || true").split()

    yield messages
    on_lab(empty)


def leave_message(caller, inbox, number: str) -> None:
    """Wait for the beep, speak, hang up; the message must be there then."""
    assert caller.hears("beep", seconds=20), caller
    caller.media.talking = True
    assert not within(2.5, lambda: caller.over), caller
    caller.hang_up()
    assert within(5, lambda: len(inbox(number)) == 1), (inbox(number), caller)


def test_an_unanswered_call_ends_in_the_mailbox_and_its_phone_is_told(telephones, inbox, records):
    phone = telephones.ringing("6002")
    caller = telephones.dial("6001", "6002", answered=False, talking=False)
    assert caller.answered(40), caller
    assert phone.invited == 1
    assert caller.hears("vm-isunavail"), caller
    leave_message(caller, inbox, "6002")
    assert within(5, lambda: (True, 1) in phone.messages()), phone.trace()
    rows = records(1)
    assert {(row["src"], row["dst"], row["uniqueid"]) for row in rows} == {("6001", "6002", rows[0]["uniqueid"])}
    assert len(rows) <= 2 and rows[-1]["disposition"] == "ANSWERED" and rows[-1]["lastapp"] == "VoiceMail", rows


@pytest.mark.parametrize(("how", "greeting"), [("busy", "vm-isonphone"), ("decline", "vm-isunavail")])
def test_a_refused_call_ends_in_the_mailbox_of_the_phone_that_was_called(telephones, inbox, how, greeting):
    phone = telephones.refusing("6003", how)
    caller = telephones.dial("6001", "6003", talking=False)
    assert phone.invited == 1
    assert caller.hears(greeting), caller
    leave_message(caller, inbox, "6003")
    assert within(5, lambda: (True, 1) in phone.messages()), phone.trace()


def test_a_phone_that_is_switched_off_has_its_mailbox_all_the_same(telephones, inbox):
    caller = telephones.dial("6002", "6001", talking=False)
    assert caller.hears("vm-isunavail"), caller
    leave_message(caller, inbox, "6001")


def test_the_owner_hears_and_deletes_his_message_with_his_pin(telephones, inbox, lab):
    """6500 opens the box of the phone that calls, without asking whose."""
    caller = telephones.dial("6001", "6002", talking=False)
    leave_message(caller, inbox, "6002")
    owner = telephones.dial("6002", "6500", talking=False)
    assert owner.hears("vm-password"), owner
    owner.media.press(lab["mailboxes"]["6002"] + "#")
    assert owner.hears("vm-youhave") and owner.hears("vm-INBOX"), owner
    owner.media.press("1")
    assert within(20, lambda: owner.media.frames_of(caller.media) > 75), (owner, "does not hear the message")
    owner.media.press("7")
    assert owner.hears("vm-deleted"), owner
    owner.hang_up()
    assert within(5, lambda: inbox("6002") == []), inbox("6002")


def test_a_wrong_pin_and_the_pin_of_another_open_nothing(telephones, lab):
    owner = telephones.dial("6002", "6500", talking=False)
    assert owner.hears("vm-password"), owner
    for pin in ("0000", lab["mailboxes"]["6003"], "8888"):
        owner.media.press(pin + "#")
        assert owner.hears_any("vm-incorrect", "vm-incorrect-mailbox", "vm-invalid-password", "vm-goodbye"), owner
    assert owner.ended(), owner
    assert not re.search("vm-youhave|vm-opts|vm-onefor", " ".join(owner.heard())), owner


def test_a_mailbox_takes_ten_messages(telephones, inbox, on_lab):
    place = f"{SPOOL}/from-internal/6003/INBOX"
    on_lab(f"""install -d -o asterisk -g asterisk {place} && cd {place} && for n in 0 1 2 3 4 5 6 7 8 9; do
        install -o asterisk -g asterisk -m 644 /var/lib/asterisk/sounds/es/vm-sorry.wav msg000$n.wav
        printf '[message]\\norigtime=1600000000\\nduration=2\\nmsg_id=1600000000-%s\\n' $n > msg000$n.txt; chown asterisk: msg000$n.txt
        done""")
    caller = telephones.dial("6001", "6003", talking=False)
    assert caller.hears("vm-mailboxfull", seconds=20), caller
    assert caller.ended(), caller
    assert len(inbox("6003")) == 10
