"""Calls from outside to a finished lab host, by SIPp, as from a softphone."""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace

import pytest
import sipp
from tls import Relay

ENOUGH = 0.95  # of the RTP frames; the exchange may drop the first few while it learns the phones' RTP addresses


@pytest.fixture
def account(lab):
    """A function from a number to its Account; password replaces the right one."""

    def make(number: str, password: str | None = None) -> sipp.Account:
        known = lab["phones"].get(number, {}).get("password")
        return sipp.Account(number, password or known, lab["host"], lab["sip"]["udp"])

    return make


@pytest.fixture
def registered(account):
    """A function that registers a phone until the end of the test, and returns its local port."""
    done = []

    def make(number: str) -> int:
        port = sipp.free_port(account(number).host)
        outcome = sipp.register(account(number), port)
        assert outcome.code == 200, outcome
        done.append((account(number), port))
        return port

    yield make
    for phone, port in done:
        sipp.register(phone, port, expires=0)


def test_register_is_challenged_first(account):
    outcome = sipp.register(account("6001"), sipp.free_port(account("6001").host), expires=0)
    assert outcome.codes[0] == 401 and outcome.code == 200, outcome


def test_phones_call_and_hear_each_other(account, registered, records):
    registered("6001")
    port = registered("6002")
    talk = sipp.call(account("6001"), "6002", callee=(account("6002"), port))
    assert (talk.caller.code, talk.caller.exit, talk.callee.exit) == (200, 0, 0), talk
    assert talk.sent == 100
    assert talk.caller_heard >= ENOUGH * talk.sent and talk.callee_heard >= ENOUGH * talk.sent, talk
    new = records()
    assert [(row["src"], row["dst"], row["disposition"]) for row in new] == [("6001", "6002", "ANSWERED")]
    assert 2 <= new[0]["billsec"] <= 4


@pytest.fixture
def encrypted(lab, account, on_lab):
    """A phone's connection over TLS to the exchange, whose certificate alone is trusted."""
    port = lab["sip"]["tls"]
    assert port, "the exchange under test has no TLS; put tls into its labredes_sip_transports"
    relay = Relay(lab["host"], port, on_lab("cat /etc/ssl/labredes/certificate.pem"), sipp.local_address(lab["host"]))
    yield relay
    relay.close()


def test_tls_phone_calls_and_is_called(lab, account, registered, encrypted, records):
    phone = replace(account("6001"), port=lab["sip"]["tls"], relay=encrypted.address)
    encrypted.called = sipp.free_port(lab["host"])
    assert encrypted.exchange.version() in ("TLSv1.2", "TLSv1.3")
    assert sipp.register(phone, encrypted.called).code == 200
    port = registered("6002")
    for count, (caller, number, callee) in enumerate(
        ((phone, "6002", (account("6002"), port)), (account("6002"), "6001", (phone, encrypted.called))), 1
    ):
        talk = sipp.call(caller, number, callee=callee)
        assert (talk.caller.code, talk.caller.exit, talk.callee.exit) == (200, 0, 0), talk
        assert talk.caller_heard >= ENOUGH * talk.sent and talk.callee_heard >= ENOUGH * talk.sent, talk
        written = [(row["src"], row["dst"], row["disposition"]) for row in records(count)]
        assert written[count - 1 :] == [(caller.number, number, "ANSWERED")]
    assert sipp.register(phone, encrypted.called, expires=0).code == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_1_1_is_refused(lab, encrypted):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((lab["host"], lab["sip"]["tls"]), timeout=5) as raw,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        old.wrap_socket(raw)


def test_wrong_password_and_unknown_user_get_one_answer(account):
    port = sipp.free_port(account("6001").host)
    wrong = sipp.register(account("6001", password="not-the-password"), port)
    unknown = sipp.register(account("6099", password="not-the-password"), port)
    assert wrong.code in (401, 403), wrong
    assert wrong.codes == unknown.codes


def test_dtmf_arrives_at_the_other_phone(telephones):
    callee = telephones.answering("6002")
    caller = telephones.dial("6001", "6002")
    assert callee.talks() and caller.hears_party(callee.media)
    caller.media.press("19*0#")
    callee.media.press("55")
    assert sipp.within(2, lambda: (callee.media.keys, caller.media.keys) == ("19*0#", "55")), (
        callee.media.keys,
        caller.media.keys,
    )
