"""Phones on the other side of a router with port forwards, and phones over IPv6."""

from __future__ import annotations

import re

import pytest
from nat import HOST6, OUTSIDE, Nat

ENOUGH = 0.9  # of the RTP frames


@pytest.fixture(scope="module")
def nat(lab_directory, lab, on_lab) -> Nat:
    """The lab host behind a router, and phones outside."""
    with Nat(lab_directory, lab, on_lab) as network:
        yield network


@pytest.fixture
def end(lab):
    """A function that describes one end of a call: a user, a transport, and the exchange's address."""

    def describe(user: str, transport: str, server: str = OUTSIDE) -> dict:
        return {"user": user, "transport": transport, "server": [server, lab["sip"][transport]]}

    return describe


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_phones_outside_of_a_nat_hear_each_other(nat, end, transport):
    (call,) = nat.calls([end("6001", transport), end("6002", transport)], 1)
    assert call["status"] == 200 and call.get("ended"), call
    assert call["media"] == [OUTSIDE, OUTSIDE], call
    assert all(re.match(rf"sips?:(asterisk@)?{OUTSIDE}[:;]", contact) for contact in call["contacts"]), call
    assert min(call["heard"]) >= ENOUGH * call["sent"], call


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_phone_over_ipv6_and_phone_over_ipv4_hear_each_other(nat, end, transport):
    (call,) = nat.calls([end("6001", transport, HOST6), end("6002", "udp")], 1)
    assert call["status"] == 200 and call.get("ended"), call
    assert call["media"] == [HOST6, OUTSIDE], call
    assert min(call["heard"]) >= ENOUGH * call["sent"], call


def test_phone_inside_is_given_the_own_address(lab, telephones):
    """Phones on the exchange's side of the router do not reach its outside address."""
    callee = telephones.answering("6002")
    caller = telephones.dial("6001", "6002")
    assert callee.talks() and caller.hears_party(callee.media), caller
    assert OUTSIDE not in callee.trace() and lab["host"] in callee.trace()
