"""What the exchange is to keep no longer goes: messages with their lamps, recordings, records; nothing younger."""

from __future__ import annotations

import json
import re
import shlex
import time

import pytest
from playbook import play
from sipp import within

SPOOL = "/var/spool/asterisk"
DAYS = {"retention_record_days": 30, "retention_recording_days": 30, "retention_message_days": 30}
# As the user of Asterisk, which has to own the directories as well: a message of so many days.
LEAVE = """
d={spool}/voicemail/from-internal/{number}/{folder}; mkdir -p $d && cd $d
cp /var/lib/asterisk/sounds/es/vm-sorry.wav msg{index:04d}.wav
printf '[message]\\norigtime=%s\\nduration=2\\nmsg_id=%s\\n' {at} {name} > msg{index:04d}.txt
"""
RECORD = "INSERT INTO cdr (calldate, uniqueid, sequence) VALUES (now() - interval '{days} days', '{key}', 1)"
QUERY = "cd / && sudo -u postgres psql -Atc {} asterisk"


@pytest.fixture
def policy(lab_directory, on_lab):
    """A function that has a run apply days; returns what the run says. Nothing is removed again after the test."""

    def run(days: dict[str, int], *more: str) -> str:
        done = play(lab_directory, "--tags=pbx,retention", "--diff", "-e", json.dumps(days), *more)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    yield run
    on_lab(QUERY.format("\"DELETE FROM cdr WHERE uniqueid LIKE '%-9._'\"") + f"; rm -f {SPOOL}/monitor/*.wav")
    if on_lab("ls /usr/local/sbin/labredes-retention || true"):
        run({})


@pytest.fixture
def leave(on_lab, inbox):
    """A function that leaves a message of some days in a mailbox, called after them."""

    def write(number: str, index: int, days: int, folder: str = "INBOX") -> None:
        at, name = int(time.time()) - days * 86400, f"days-{days}"
        script = LEAVE.format(spool=SPOOL, number=number, folder=folder, index=index, at=at, name=name)
        on_lab(f"runuser -u asterisk -- sh -c {shlex.quote(script)}")

    return write


def found(on_lab, number: str) -> list[str]:
    """The messages of a mailbox, each as FOLDER/NUMBER and its name."""
    shown = on_lab(f"cd {SPOOL}/voicemail/from-internal/{number} && grep -r msg_id --include='msg*.txt' . || true")
    return sorted(re.sub(r"^\./(\w+)/msg(\d+)\.txt:msg_id=(.*)$", r"\1/\2 \3", line) for line in shown.splitlines())


def test_old_goes_and_the_lamp_with_it(policy, leave, on_lab, telephones, inbox, lab):
    name = re.search("System name: *(.*)", on_lab("asterisk -rx 'core show settings'"))[1]
    for days, key in ((40, f"{name}-9.1"), (20, f"{name}-9.2"), (40, "other-9.1")):
        on_lab(QUERY.format(shlex.quote(RECORD.format(days=days, key=key))))
    on_lab(f"mkdir -p {SPOOL}/monitor; cd {SPOOL}/monitor && touch new.wav && touch -d '-40 days' old.wav")
    on_lab(f"chown -R asterisk:asterisk {SPOOL}/monitor")
    assert "labredes-retention" in policy(DAYS, "--check")
    assert "labredes-retention" not in on_lab("systemctl list-timers --all")
    policy(DAYS)
    assert "labredes-retention.timer" in on_lab("systemctl list-timers")
    phone = telephones.ringing("6003")
    leave("6003", 0, 40)
    for index, days in enumerate((35, 3, 36, 4)):
        leave("6002", index, days)
    leave("6002", 0, 50, folder="Old")
    leave("6002", 0, 5, folder="Urgent")
    assert within(15, lambda: phone.messages()[-1:] == [(True, 1)]), phone.messages()
    # Somebody listens to the mailbox.
    owner = telephones.dial("6002", "6500", talking=False)
    assert owner.hears("vm-password"), owner
    on_lab("systemctl start --no-block labredes-retention")
    time.sleep(4)
    assert len(found(on_lab, "6002")) == 6
    owner.hang_up()
    assert within(20, lambda: "inactive" in on_lab("systemctl is-active labredes-retention || true"))
    assert found(on_lab, "6002") == ["INBOX/0000 days-3", "INBOX/0001 days-4", "Urgent/0000 days-5"]
    assert len(inbox("6002")) == 2 and found(on_lab, "6003") == []
    assert within(15, lambda: phone.messages()[-1] == (False, 0)), phone.messages()
    assert on_lab(f"ls {SPOOL}/monitor") == "new.wav\n"
    assert on_lab(
        QUERY.format("\"SELECT uniqueid FROM cdr WHERE uniqueid LIKE '%-9._' ORDER BY 1\"")
    ).split() == sorted([f"{name}-9.2", "other-9.1"])
    assert "Removed" in on_lab("journalctl --unit=labredes-retention --output=cat")
    # The mailbox takes messages as before.
    phone.leave()
    caller = telephones.dial("6001", "6003", talking=False)
    assert caller.hears("vm-isunavail"), caller
    assert caller.leaves_message(), caller
    assert within(5, lambda: len(inbox("6003")) == 1), (inbox("6003"), caller)
    policy({})
    assert "labredes-retention" not in on_lab(
        "systemctl list-timers --all; ls /etc /etc/systemd/system /usr/local/sbin"
    )
    assert "pollmailboxes" not in on_lab("cat /etc/asterisk/voicemail.conf")
