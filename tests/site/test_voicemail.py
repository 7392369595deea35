"""Mailboxes: messages for phones that do not answer or are busy, and playback on 6500."""

from __future__ import annotations

import re
import shlex
import time

import pytest
from sipp import within


def leave_message(caller, inbox, number: str) -> None:
    """Leave a message after the greeting, and check that it is stored."""
    assert caller.leaves_message(), caller
    assert within(5, lambda: len(inbox(number)) == 1), (inbox(number), caller)


def test_phone_rings_30_seconds_before_its_mailbox_answers(telephones):
    """Leaving a message after that is tested in test_changes.py, with a shorter time."""
    phone = telephones.ringing("6003")
    caller = telephones.dial("6001", "6003", answered=False, talking=False)
    assert within(5, lambda: phone.invited == 1), caller
    start = time.monotonic()
    assert caller.answered(40), caller
    assert 28 < time.monotonic() - start < 33
    assert caller.hears("vm-isunavail"), caller


@pytest.mark.parametrize(("how", "greeting"), [("busy", "vm-isonphone"), ("decline", "vm-isunavail")])
def test_rejected_call_reaches_the_mailbox(telephones, inbox, how, greeting):
    phone = telephones.refusing("6003", how)
    caller = telephones.dial("6001", "6003", talking=False)
    assert phone.invited == 1
    assert caller.hears(greeting), caller
    leave_message(caller, inbox, "6003")
    assert within(5, lambda: (True, 1) in phone.messages()), phone.trace()


def test_unregistered_phone_has_its_mailbox(telephones, inbox):
    caller = telephones.dial("6002", "6001", talking=False)
    assert caller.hears("vm-isunavail"), caller
    leave_message(caller, inbox, "6001")


def test_owner_hears_and_deletes_a_message_with_the_pin(telephones, inbox, lab):
    """6500 opens the mailbox of the calling phone without asking for its number."""
    caller = telephones.dial("6001", "6002", talking=False)
    assert caller.hears("vm-isunavail"), caller
    leave_message(caller, inbox, "6002")
    owner = telephones.dial("6002", "6500", talking=False)
    assert owner.hears("vm-password"), owner
    owner.media.press(lab["mailboxes"]["6002"] + "#")
    assert owner.hears("vm-youhave") and owner.hears("vm-INBOX", whole=False), owner
    owner.media.press("1")
    assert within(20, lambda: owner.media.frames_of(caller.media) > 75), (owner, "did not hear the message")
    owner.media.press("7")
    assert owner.hears("vm-deleted"), owner
    owner.hang_up()
    assert within(5, lambda: inbox("6002") == []), inbox("6002")


def test_wrong_pin_opens_no_mailbox(telephones, lab):
    owner = telephones.dial("6002", "6500", talking=False)
    assert owner.hears("vm-password"), owner
    for pin in ("0000", lab["mailboxes"]["6003"], "8888"):
        owner.media.press(pin + "#")
        assert owner.hears_any("vm-incorrect", "vm-incorrect-mailbox", "vm-invalid-password", "vm-goodbye"), owner
    assert owner.ended(), owner
    assert not re.search("vm-youhave|vm-opts|vm-onefor", " ".join(owner.heard())), owner


def test_mailbox_with_ten_messages_is_full(telephones, inbox, on_lab):
    directory = "/var/spool/asterisk/voicemail/from-internal/6003/INBOX"
    script = f"""mkdir -p {directory} && cd {directory} && for n in 0 1 2 3 4 5 6 7 8 9; do
        cp /var/lib/asterisk/sounds/es/vm-sorry.wav msg000$n.wav
        printf '[message]\\norigtime=1600000000\\nduration=2\\nmsg_id=1600000000-%s\\n' $n > msg000$n.txt
        done"""
    # As the user of Asterisk, which has to own the directories above as well.
    on_lab(f"runuser -u asterisk -- sh -c {shlex.quote(script)}")
    caller = telephones.dial("6001", "6003", talking=False)
    assert caller.hears("vm-isunavail"), caller
    caller.media.press("#")
    assert caller.hears("vm-mailboxfull", seconds=20), caller
    assert caller.ended(), caller
    assert len(inbox("6003")) == 10
