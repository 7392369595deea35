"""What ordinary telephones expect: their codec, encrypted sound, lamps of others, and two devices on one number."""

from __future__ import annotations

import pytest
from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone, wait
from sipp import within


class Watcher(Phone):
    """A phone with lamps: it subscribes to the states of other numbers and keeps what it is notified of."""

    def __init__(self, number: str, password: str, host: str, port: int):
        super().__init__(number, (number, password), Connection("udp", (host, port)))
        self.states: dict[str, str] = {}

    def watch(self, number: str, event: str, accept: str) -> int:
        """Subscribe to a number; returns the status of the answer."""
        call_id = f"{event}-{number}"
        headers = [("From", f"{self.me};tag=lamp"), ("To", f"<sip:{number}@{self.server}>"), ("Call-ID", call_id)]
        headers += [("Event", event), ("Accept", accept), ("Expires", "60"), *self.contact]
        asked = self._request("SUBSCRIBE", f"sip:{number}@{self.server}", headers)
        wait([self], lambda: asked.final, 5)
        return asked.final.status

    def shows(self, lamp: str, *words: str, seconds: float = 5) -> bool:
        """Wait until the last notification of a lamp, event and number, has one of these words."""
        return wait([self], lambda: any(word in self.states.get(lamp, "") for word in words), seconds)

    def _requested(self, message):
        if message.method == "NOTIFY":
            self.states[message.get("Call-ID")] = message.body
        super()._requested(message)


@pytest.fixture
def watcher(lab) -> Watcher:
    """Phone 6001, which watches others and ends its subscriptions with its registration."""
    phone = Watcher("6001", lab["phones"]["6001"]["password"], lab["host"], lab["sip"]["udp"])
    yield phone
    phone.stream.socket.close()
    phone.connection.close()


@pytest.mark.parametrize("codec", ["PCMA", "G722/16000"])
def test_phone_with_one_codec_is_heard_and_hears(telephones, codec):
    callee = telephones.answering("6002")
    caller = telephones.softphone("6001", codec=codec, dial="6002")
    assert callee.talks(), caller.text()
    assert caller.hears_sound(), caller.text()
    assert within(5, lambda: len(callee.media.heard) > 8000 and callee.media.loud(-8000) > 4000), caller.text()


def test_phone_that_demands_encryption_calls_over_tls(telephones):
    callee = telephones.answering("6002")
    caller = telephones.softphone("6001", "tls", encryption="srtp-mand", dial="6002")
    assert callee.talks() and caller.says("SRTP is Enabled"), caller.text()
    assert caller.hears_sound(), caller.text()
    assert within(5, lambda: len(callee.media.heard) > 8000 and callee.media.loud(-8000) > 4000), caller.text()


def test_phone_that_takes_encryption_is_called_over_tls(telephones):
    """One that demands it is called in test_changes.py, with the setting that it needs."""
    callee = telephones.softphone("6001", "tls", encryption="srtp")
    assert callee.registered(), callee.text()
    caller = telephones.dial("6002", "6001")
    assert callee.says("SRTP is Enabled") and callee.hears_sound(), callee.text()
    assert within(5, lambda: caller.audible(0.5) > 0.5), caller


def test_lamps_of_a_phone_follow_its_calls(watcher, telephones):
    assert watcher.watch("6002", "dialog", "application/dialog-info+xml") == 200
    assert watcher.watch("6002", "presence", "application/pidf+xml") == 200
    assert watcher.shows("dialog-6002", "<state>terminated</state>"), watcher.states
    telephones.answering("6002", seconds=1.5)
    caller = telephones.dial("6003", "6002", answered=False)
    for state in ("early", "confirmed"):
        assert watcher.shows("dialog-6002", f"<state>{state}</state>"), (watcher.states, caller)
    assert watcher.shows("presence-6002", "On the phone"), watcher.states
    caller.hang_up()
    assert watcher.shows("dialog-6002", "<state>terminated</state>"), watcher.states
    assert watcher.shows("presence-6002", "Ready"), watcher.states


def test_lamps_of_conference_and_queue(watcher, telephones):
    assert watcher.watch("6000", "dialog", "application/dialog-info+xml") == 200
    assert watcher.watch("8001", "dialog", "application/dialog-info+xml") == 200
    assert watcher.shows("dialog-6000", "<state>terminated</state>"), watcher.states
    guest = telephones.dial("6002", "6000")
    assert watcher.shows("dialog-6000", "<state>confirmed</state>"), watcher.states
    guest.hang_up()
    assert watcher.shows("dialog-6000", "<state>terminated</state>"), watcher.states
    telephones.ringing("6003")
    member = telephones.dial("6003", "7001", talking=False)
    assert member.hears("beep") and member.ended(), member
    caller = telephones.dial("6002", "8001", talking=False)
    assert watcher.shows("dialog-8001", "<state>early</state>"), watcher.states
    caller.hang_up()
    assert watcher.shows("dialog-8001", "<state>terminated</state>"), watcher.states
    member = telephones.dial("6003", "7002", talking=False)
    assert member.hears("beep") and member.ended(), member


@pytest.mark.parametrize("contact", ["sip:a&PJSIP/6002&b@{}", "sip:a,1,S(1)@{}"])
def test_contact_cannot_add_a_destination_to_a_call(lab, telephones, on_lab, contact):
    other = telephones.answering("6002")
    connection = Connection("udp", (lab["host"], lab["sip"]["udp"]))
    phone = Phone("6003", ("6003", lab["phones"]["6003"]["password"]), connection)
    phone.contact = [("Contact", f"<{contact.format(f'{connection.host}:{connection.port}')}>")]
    asked = phone.register()
    try:
        assert wait([phone], lambda: asked.final, 5) and asked.final.status == 200, asked.final
        caller = telephones.dial("6001", "6003", answered=False, talking=False)
        assert wait([phone], lambda: phone.incoming, 5), caller
        phone.answer()
        assert wait([phone], lambda: caller.code == 200, 5) and other.invited == 0, caller
        assert not wait([phone], lambda: phone.call.ended, 2), "the contact has added an option to Dial"
        caller.hang_up()
    finally:
        on_lab("asterisk -rx 'database deltree registrar/contact'")
