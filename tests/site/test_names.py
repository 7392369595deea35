"""Names with every character that Asterisk's files or applications treat in a way of their own."""

from __future__ import annotations

import re

import pytest

ODD = """Ñú, "Ana" (x; y & 'z' | =!"""
AGENT = """Peña, "Eva" (b; c & 'd' =!"""


@pytest.fixture
def changed(exchange, lab):
    """The exchange has phones whose names are odd in this test; the phone 6003 has both kinds."""
    phones = [
        {"number": "6001", "name": "Ana"},
        {"number": "6002", "name": "Eva, dos"},
        {"number": "6003", "name": ODD, "agent": AGENT},
    ]
    secrets = {number: lab["phones"][number]["password"] for number in ("6001", "6002", "6003")}
    phones = [{**phone, "password": secrets[phone["number"]], "pin": "481516"} for phone in phones]
    exchange.ensure(
        pbx_phones=phones, pbx_queues=[{"name": "ColaUno", "number": "8001", "agents": ["6003"]}], pbx_call_centres=[]
    )


def test_odd_names_are_held_everywhere(changed, telephones, on_lab, lab):
    queue = on_lab("asterisk -rx 'queue show ColaUno'")
    assert f"{AGENT} (Local/6003@agents from Agent:6003)" in queue, queue
    assert AGENT in on_lab("asterisk -rx 'agent show all'")
    shown = ODD.replace('"', '\\"')
    assert f'"{shown}" <6003>' in on_lab("asterisk -rx 'pjsip show endpoint 6003'")
    assert ODD.replace(",", "") in on_lab("asterisk -rx 'voicemail show users'")
    phone = telephones.answering("6002")
    caller = telephones.dial("6003", "6002")
    assert phone.talks() and caller.hears_party(phone.media), caller
    (shown,) = set(phone.callers())
    display = shown[1 : shown.rindex('" <sip:6003')]
    assert re.sub(r"\\(.)", r"\1", display) == ODD, shown


@pytest.mark.parametrize(("number", "name"), [("6002", "Eva, dos"), ("6003", ODD.replace("|", "/"))])
def test_phone_with_an_odd_name_joins_the_queue_and_is_rung(changed, telephones, on_lab, number, name):
    phone = telephones.answering(number)
    line = telephones.dial(number, "7001", talking=False)
    assert line.hears("beep") and line.ended(), line
    queue = on_lab("asterisk -rx 'queue show ColaUno'")
    assert f"{name} (PJSIP/{number})" in queue, queue
    caller = telephones.dial("6001", "8001", talking=False)
    assert phone.talks() and caller.hears_party(phone.media), caller
    on_lab(f"asterisk -rx 'queue remove member PJSIP/{number} from ColaUno'")
