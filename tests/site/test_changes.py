"""Changes to the data of a running exchange: what changed takes effect, everything else continues."""

from __future__ import annotations

import re
import secrets
import ssl
import time
from datetime import datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from playbook import Run, play
from sipp import within

ROOT = Path(__file__).resolve().parents[2]
CERTIFICATE = "/etc/ssl/labredes/certificate.pem"
BACKUP = "/var/tmp/certificate-before-the-test.pem"
NEW = "6005"  # a phone without an agent
MAIL = "/var/spool/asterisk/voicemail/mail-of-the-test"
PASSWORD = secrets.token_hex(12)
EVERY_MODULE = ["app_queue", "app_voicemail", "pbx_config", "pbx_lua", "res_pjsip"]


@pytest.fixture(scope="module")
def phones(lab_directory) -> list[dict]:
    """The phones of the exchange under test."""
    defaults = yaml.safe_load((ROOT / "roles/pbx/defaults/main.yml").read_text())
    inventory = yaml.safe_load((lab_directory / "inventory/hosts.yml").read_text())
    return {**defaults, **inventory["all"]["vars"]}["pbx_phones"]


@pytest.fixture(scope="module")
def other_data(phones) -> dict[str, object]:
    """Data with a renamed phone, a new one, and more of everything that can be dialled."""
    other = {"6003": {"name": "Renamed"}, "6002": {"media_encryption": "required"}}
    renamed = [{**phone, **other.get(phone["number"], {})} for phone in phones]
    return {
        "pbx_phones": [
            *renamed,
            {"number": NEW, "name": "Portería", "password": PASSWORD, "devices": 2, "email": "a@example.com"},
        ],
        "pbx_queues": [
            {"name": "ColaUno", "number": "8001", "agents": ["6001", "6002", "6003"]},
            {"name": "Ventas", "number": "8002", "agents": ["6003"]},
        ],
        "pbx_call_centres": [
            {"number": "11888", "departments": {"1": "6001", "2": "6002", "3": "6003"}},
            {"number": "11999", "departments": {"10": NEW}, "tries": 2},
            {"number": "11998", "departments": {"1": "6001"}, "tries": 1},
        ],
        "pbx_conferences": ["6000", "6010"],
        "pbx_ring_seconds": 5,
        "pbx_voicemail_mail_command": f"/usr/bin/tee {MAIL}",
    }


@pytest.fixture(scope="session")
def lab(lab) -> dict:
    """The lab with the account of the new phone."""
    return {**lab, "phones": {**lab["phones"], NEW: {"password": PASSWORD}}}


@pytest.fixture
def changed(exchange, other_data) -> None:
    """The exchange has the other data in this test; every other test has that of the inventory."""
    exchange.ensure(**other_data)


@pytest.fixture
def renew(exchange, on_lab, lab, lab_directory):
    """A function that gives the host a new certificate for its key, as a renewal does, and returns it.

    The old one is back after the test.
    """

    def create() -> str:
        return on_lab(f"""cd /etc/ssl/labredes && openssl req -x509 -new -key key.pem -subj /CN=renewed -days 300 \
            -addext subjectAltName=IP:{lab["host"]} -out /tmp/renewed
            cat /tmp/renewed > {CERTIFICATE} && rm /tmp/renewed && cat {CERTIFICATE}""").strip()

    on_lab(f"cp -p {CERTIFICATE} {BACKUP}")
    yield create
    on_lab(f"cat {BACKUP} > {CERTIFICATE} && rm {BACKUP}")
    exchange.apply()
    # HTTP and the events service serve it, too.
    assert play(lab_directory, "--tags=asterisk,events").returncode == 0


def process(on_lab) -> str:
    """The running process of Asterisk."""
    return on_lab("systemctl show asterisk --property=MainPID,NRestarts,ActiveEnterTimestampMonotonic")


def served_certificate(lab) -> str:
    """The certificate that a phone gets over TLS."""
    assert lab["sip"]["tls"], "the exchange under test has no TLS; add tls to its labredes_sip_transports"
    return ssl.get_server_certificate((lab["host"], lab["sip"]["tls"])).strip()


def test_call_continues_while_the_data_changes(exchange, other_data, phones, telephones, on_lab, records):
    before = process(on_lab)
    callee = telephones.answering("6002")
    caller = telephones.dial("6001", "6002")
    assert callee.talks() and caller.hears_party(callee.media)
    start, heard = time.monotonic(), len(caller.media.heard)

    mail = [{**phone, "email": "new@example.com"} if phone["number"] == "6003" else phone for phone in phones]
    assert exchange.apply(pbx_phones=mail) == Run(2, ["app_voicemail"]), "more than the mailbox was reloaded"
    assert "new@example.com" in on_lab("cat /etc/asterisk/voicemail.conf")
    assert exchange.apply(**other_data).reloaded == EVERY_MODULE
    boxes = on_lab("asterisk -rx 'voicemail show users'")
    assert re.search(rf"{NEW}\s+Portería", boxes) and re.search(r"6003\s+Renamed", boxes), boxes

    assert caller.hears_party(callee.media), "the audio has stopped"
    frames = caller.media.heard[heard:].count(callee.media.mark) / 10
    assert frames > 0.95 * 50 * (time.monotonic() - start), "the audio was interrupted"
    assert not caller.over and callee.invited == 1
    assert process(on_lab) == before, "Asterisk was restarted"
    caller.hang_up()
    assert [(row["src"], row["dst"], row["disposition"]) for row in records()] == [("6001", "6002", "ANSWERED")]


def test_renewed_certificate_is_served_without_a_restart(exchange, renew, lab, on_lab):
    before = process(on_lab)
    renewed = renew()
    assert exchange.apply().reloaded == ["res_pjsip"]
    assert served_certificate(lab) == renewed
    assert process(on_lab) == before, "Asterisk was restarted"


def test_new_call_centre_rings_the_new_phone(changed, telephones):
    """After a wrong choice, since its menu allows two attempts."""
    phone = telephones.answering(NEW)
    caller = telephones.dial("6001", "11999", talking=False)
    for keys, answer in (("99", "vm-sorry"), ("10", "digits/1")):
        assert caller.hears("vm-enter-num-to-call", seconds=15), caller
        caller.media.press(keys)
        assert caller.hears(answer, seconds=15), caller
    assert phone.talks() and caller.hears_party(phone.media), caller


def test_silence_at_a_call_centre_ends_the_call(changed, telephones):
    caller = telephones.dial("6001", "11998", talking=False)
    assert caller.hears("vm-sorry", seconds=15) and caller.hears("vm-goodbye") and caller.ended(), caller


def test_unanswered_call_leaves_a_message_and_lights_the_lamp(changed, telephones, inbox, records, on_lab):
    phone = telephones.ringing(NEW)
    caller = telephones.dial("6001", NEW, answered=False, talking=False)
    assert within(5, lambda: phone.invited == 1), caller
    start = time.monotonic()
    assert caller.answered() and 4 < time.monotonic() - start < 8, (time.monotonic() - start, caller)
    assert phone.invited == 1
    assert caller.hears("vm-isunavail"), caller
    assert caller.leaves_message() and within(5, lambda: len(inbox(NEW)) == 1), (inbox(NEW), caller)
    assert within(5, lambda: (True, 1) in phone.messages()), phone.trace()
    rows = records(2)
    assert [(row["src"], row["dst"], row["lastapp"], row["disposition"]) for row in rows] == [
        ("6001", NEW, "Dial", "NO ANSWER"),
        ("6001", NEW, "VoiceMail", "ANSWERED"),
    ]
    assert len({row["uniqueid"] for row in rows}) == 1, rows
    mail = message_from_bytes(on_lab(f"cat {MAIL} && rm {MAIL}").encode(), policy=policy.default)
    assert mail["Subject"] == 'Mensaje nuevo de "Paquito Txokolatero" <6001>'
    text = mail.get_content()
    assert "Portería:" in text and f"El buzón {NEW} tiene" in text, text
    written = datetime.strptime(re.search(r"\d\d/\d\d/\d{4} \d\d:\d\d", text)[0], "%d/%m/%Y %H:%M")
    age = datetime.now(tz=ZoneInfo("Europe/Madrid")).replace(tzinfo=None) - written
    assert timedelta(0) < age < timedelta(minutes=3), (text, age)


def test_both_devices_of_a_number_ring(changed, telephones):
    """The one that answers gets the call, and the other stops ringing."""
    ringing, answering = telephones.ringing(NEW), telephones.answering(NEW, seconds=1.5)
    caller = telephones.dial("6001", NEW)
    assert answering.talks() and caller.hears_party(answering.media), caller
    assert (ringing.invited, answering.invited) == (1, 1)
    assert within(3, lambda: re.search("^CANCEL ", ringing.trace(), re.MULTILINE)), ringing.trace()


def test_phone_that_demands_encryption_is_called(changed, telephones):
    phone = telephones.softphone("6002", "tls", encryption="srtp-mand")
    assert phone.registered(), phone.text()
    caller = telephones.dial("6001", "6002")
    assert phone.says("SRTP is Enabled") and phone.hears_sound(), phone.text()
    assert within(5, lambda: caller.audible(0.5) > 0.5), caller


def test_phone_without_an_agent_cannot_log_in(changed, telephones):
    line = telephones.dial(NEW, "7000", talking=False)
    assert line.hears("agent-incorrect") and line.ended(), line
    assert "agent-loginok" not in line.heard(), line


def test_new_queue_calls_its_agent(changed, telephones, on_lab):
    agent = telephones.dial("6003", "7000", talking=False)
    assert agent.hears("agent-loginok"), agent
    assert within(
        9, lambda: re.search("^6003 .*NOT_INUSE", on_lab("asterisk -rx 'agent show online'"), re.MULTILINE)
    ), agent
    caller = telephones.dial(NEW, "8002", talking=False)
    assert agent.hears("beep", seconds=12), agent
    agent.media.press("#")
    agent.media.talking = True
    assert caller.hears_party(agent.media), caller


def test_new_conference_can_be_joined(changed, telephones):
    assert telephones.dial(NEW, "6010", talking=False).hears("conf-onlyperson")


def test_former_data_removes_everything_new(changed, exchange, telephones, on_lab):
    assert "Ventas" in on_lab("asterisk -rx 'queue show'")
    assert exchange.apply().reloaded == EVERY_MODULE
    assert exchange.apply() == Run(0, []), "the second run changes something"
    assert "Ventas" not in on_lab("asterisk -rx 'queue show'")
    line = telephones.dial("6001", NEW, answered=False, talking=False)
    assert within(10, lambda: line.over) and line.code == 404, line


def test_manual_changes_are_corrected(lab_directory, on_lab):
    """Each file that is not as described, and no other: rtp.conf has only a new date."""
    state = "cd /etc/asterisk && stat --format='%n %a %U:%G' * && sha256sum *"
    before = on_lab(state)
    on_lab("""cd /etc/asterisk && echo '; mine' >> agents.conf && chmod 0644 confbridge.conf
              chown asterisk queues.conf && chgrp root musiconhold.conf && rm udptl.conf
              echo '; mine' >> features.conf && touch rtp.conf""")
    done = play(lab_directory, "--tags=asterisk,pbx", "--diff", seconds=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert sorted(re.findall(r"^\+\+\+ after: /etc/asterisk/(\S+)", done.stdout, re.MULTILINE)) == [
        "agents.conf",
        "confbridge.conf",
        "features.conf",
        "musiconhold.conf",
        "queues.conf",
        "udptl.conf",
    ]
    assert on_lab(state) == before
