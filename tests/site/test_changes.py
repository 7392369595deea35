"""The exchange is described anew while people talk: what changed is in force, what did not is left alone."""

from __future__ import annotations

import json
import re
import secrets
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from playbook import play
from sipp import within

ROOT = Path(__file__).resolve().parents[2]
NEW = "6004"  # a phone that is no agent
PASSWORD = secrets.token_hex(12)


@dataclass(frozen=True)
class Run:
    """What a run of site.yml did: how many changes, and which modules it reloaded."""

    changed: int
    reloaded: list[str]


@pytest.fixture(scope="module")
def phones(room) -> list[dict]:
    """The phones as the exchange under test is described."""
    defaults = yaml.safe_load((ROOT / "roles/pbx/defaults/main.yml").read_text())
    return {**defaults, **yaml.safe_load((room / "inventory/hosts.yml").read_text())["all"]["vars"]}["pbx_phones"]


@pytest.fixture(scope="session")
def lab(lab) -> dict:
    """The lab as it is with the new phone."""
    return {**lab, "phones": {**lab["phones"], NEW: {"password": PASSWORD}}}


@pytest.fixture(scope="module")
def describe(room, on_lab, lab):
    """A function that runs site.yml for the exchange alone, with other data; the old data and certificate are back in the end."""
    place = "/etc/ssl/labredes"
    last = {}

    def run(**data) -> Run:
        done = play(room, "--tags=pbx", "-e", json.dumps(data), seconds=120)
        assert done.returncode == 0, done.stdout[-3000:]
        last.update(data=data)
        reloads = done.stdout.partition("RUNNING HANDLER [labredes.pbx.pbx : Reload what changed]")[2].partition(
            "\n\n"
        )[0]
        return Run(
            max(map(int, re.findall(r"changed=(\d+)", done.stdout))),
            re.findall(r"^changed: .*\(item=(\w+)\)", reloads, re.MULTILINE),
        )

    on_lab(f"cp -p {place}/certificate.pem /tmp/certificate.before")
    yield run
    on_lab(f"cat /tmp/certificate.before > {place}/certificate.pem && rm /tmp/certificate.before")
    if last.get("data"):
        run()


def state(on_lab) -> str:
    """Which process the engine is."""
    return on_lab("systemctl show asterisk --property=MainPID,NRestarts,ActiveEnterTimestampMonotonic")


def certificate(lab) -> str:
    """The certificate that a phone is shown over TLS."""
    assert lab["sip"]["tls"], "the exchange under test has no TLS; put tls into its labredes_sip_transports"
    return ssl.get_server_certificate((lab["host"], lab["sip"]["tls"])).strip()


def test_a_call_lives_on_while_the_exchange_is_described_anew(telephones, phones, describe, on_lab, records, lab):
    process = state(on_lab)
    callee = telephones.answering("6002")
    caller = telephones.dial("6001", "6002")
    assert callee.talks() and caller.hears_party(callee.media)
    began, heard = time.monotonic(), len(caller.media.heard)

    other_mail = [{**phone, "email": "new@example.com"} if phone["number"] == "6003" else phone for phone in phones]
    run = describe(pbx_phones=other_mail)
    assert run == Run(2, ["app_voicemail"]), "more than the mailbox was read again"
    assert "new@example.com" in on_lab("cat /etc/asterisk/voicemail.conf")

    other_name = [{**phone, "name": "Renamed"} if phone["number"] == "6003" else phone for phone in phones]
    renewed = renew(on_lab, lab)
    run = describe(
        pbx_phones=[*other_name, {"number": NEW, "name": "Portería", "password": PASSWORD}],
        pbx_queues=[
            {"name": "ColaUno", "number": "8001", "agents": ["6001", "6002", "6003"]},
            {"name": "Ventas", "number": "8002", "agents": ["6003"]},
        ],
        pbx_call_centres=[
            {"number": "11888", "departments": {"1": "6001", "2": "6002", "3": "6003"}},
            {"number": "11999", "departments": {"10": NEW}, "tries": 2},
            {"number": "11998", "departments": {"1": "6001"}, "tries": 1},
        ],
        pbx_conferences=["6000", "6010"],
        pbx_ring_seconds=5,
    )
    assert sorted(run.reloaded) == ["app_queue", "app_voicemail", "pbx_config", "pbx_lua", "res_pjsip"]
    boxes = on_lab("asterisk -rx 'voicemail show users'")
    assert re.search(rf"{NEW}\s+Portería", boxes) and re.search(r"6003\s+Renamed", boxes), boxes
    assert certificate(lab) == renewed

    assert caller.hears_party(callee.media), "media has stopped"
    frames = caller.media.heard[heard:].count(callee.media.mark) / 10
    assert frames > 0.95 * 50 * (time.monotonic() - began), "media was interrupted"
    assert not caller.over and callee.invited == 1
    assert state(on_lab) == process, "the engine was restarted"
    caller.hang_up()
    assert [(row["src"], row["dst"], row["disposition"]) for row in records()] == [("6001", "6002", "ANSWERED")]


def renew(on_lab, lab) -> str:
    """Give the host a new certificate for its key, as a renewal does; returns it."""
    return on_lab(f"""cd /etc/ssl/labredes && openssl req -x509 -new -key key.pem -subj /CN=renewed -days 300 \
        -addext subjectAltName=IP:{lab["host"]} -out /tmp/renewed && cat /tmp/renewed > certificate.pem && rm /tmp/renewed
        cat certificate.pem""").strip()


def test_a_new_call_centre_leads_to_the_new_phone_after_all_tries_but_one(telephones):
    phone = telephones.answering(NEW)
    caller = telephones.dial("6001", "11999", talking=False)
    for keys, answer in (("99", "vm-sorry"), ("10", "digits/1")):
        assert caller.hears("vm-enter-num-to-call", seconds=15), caller
        caller.media.press(keys)
        assert caller.hears(answer, seconds=15), caller
    assert phone.talks() and caller.hears_party(phone.media), caller


def test_silence_at_a_call_centre_is_told_off_and_ends_the_call(telephones):
    caller = telephones.dial("6001", "11998", talking=False)
    assert caller.hears("vm-sorry", seconds=15) and caller.hears("vm-goodbye") and caller.ended(), caller


def test_a_call_that_nobody_answers_ends_in_the_mailbox_and_its_phone_is_told(telephones, inbox, records):
    phone = telephones.ringing(NEW)
    caller = telephones.dial("6001", NEW, answered=False, talking=False)
    assert within(5, lambda: phone.invited == 1), caller
    began = time.monotonic()
    assert caller.answered() and 4 < time.monotonic() - began < 8, (time.monotonic() - began, caller)
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


def test_a_phone_that_is_no_agent_may_not_log_in_as_one(telephones, on_lab):
    line = telephones.dial(NEW, "7000", talking=False)
    assert line.hears("agent-incorrect") and line.ended(), line
    assert "agent-loginok" not in line.heard(), line
    assert "0 agents" in on_lab("asterisk -rx 'agent show online'") or NEW not in on_lab(
        "asterisk -rx 'agent show online'"
    )


def test_a_new_queue_is_answered_by_its_own_agent(telephones, on_lab):
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


def test_a_new_conference_is_there(telephones):
    assert telephones.dial(NEW, "6010", talking=False).hears("conf-onlyperson")


def test_the_old_description_leaves_nothing_behind(telephones, describe, on_lab, lab):
    on_lab("cat /tmp/certificate.before > /etc/ssl/labredes/certificate.pem")
    assert sorted(describe().reloaded) == ["app_queue", "app_voicemail", "pbx_config", "pbx_lua", "res_pjsip"]
    assert certificate(lab) == on_lab("cat /etc/ssl/labredes/certificate.pem").strip()
    assert describe() == Run(0, [])
    assert "Ventas" not in on_lab("asterisk -rx 'queue show'")
    line = telephones.dial("6001", NEW, answered=False, talking=False)
    assert within(10, lambda: line.over) and line.code == 404, line


def test_what_was_changed_by_hand_is_put_right_and_it_alone(room, on_lab):
    look = "cd /etc/asterisk && stat --format='%n %a %U:%G' * && sha256sum *"
    before = on_lab(look)
    on_lab("""cd /etc/asterisk && echo '; mine' >> agents.conf && chmod 0644 confbridge.conf && chown asterisk queues.conf
              chgrp root musiconhold.conf && rm udptl.conf && echo '; mine' >> features.conf && touch rtp.conf""")
    done = play(room, "--tags=asterisk,pbx", "--diff", seconds=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert sorted(re.findall(r"^\+\+\+ after: /etc/asterisk/(\S+)", done.stdout, re.MULTILINE)) == [
        "agents.conf",
        "confbridge.conf",
        "features.conf",
        "musiconhold.conf",
        "queues.conf",
        "udptl.conf",
    ]
    assert on_lab(look) == before
