"""The filters of role fail2ban, on real log lines: which lines count as failures, and of which address."""

from __future__ import annotations

import configparser
import re

import pytest
import rendering

EVENT = (
    'SECURITY[4724] res_security_log.c: SecurityEvent="{event}",EventTV="2026-11-23T01:01:33.051+0000",'
    'Severity="Error",Service="{service}",EventVersion="1",AccountID="{account}",SessionID="{session}",LocalAddress="{family}/{transport}/'
    '{local}/5060",RemoteAddress="{family}/{transport}/{remote}/39212"{more}'
)
TAIL = ',Challenge="1795395693/bf5b51f6201f9b7f",Response="{response}",ExpectedResponse=""'
FORGED = ',LocalAddress="IPV4/UDP/192.0.2.1/5060",RemoteAddress="IPV4/UDP/203.0.113.9/5060"'
SSHD = "pbx1 sshd[4711]: "


def event(
    event="ChallengeResponseFailed",
    service="PJSIP",
    account="6001",
    session="6d184a3431a904f7",
    family="IPV4",
    transport="UDP",
    local="192.0.2.1",
    remote="198.51.100.7",
    more="",
) -> str:
    """A line of Asterisk's security log, without its date."""
    return EVENT.format(**locals())


@pytest.fixture(scope="module")
def matched(tmp_path_factory):
    """A function from a filter's name and a line to the matched address, or None."""
    secrets = tmp_path_factory.mktemp("secrets")

    def read(name: str, line: str) -> str | None:
        known = rendering.variables(rendering.FACTS["Ubuntu 18.04"], {}, secrets, "fail2ban")
        template = rendering.ROLES / f"fail2ban/templates/etc/fail2ban/filter.d/labredes-{name}.conf.j2"
        parser = configparser.ConfigParser()
        parser.read_string(rendering.render(template, known))
        for expression in parser["Definition"]["failregex"].split("\n"):
            if found := re.search(
                expression.replace("<ADDR>", r"(?P<address>\d+(?:\.\d+){3}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*)"), line
            ):
                return found["address"]
        return None

    return read


@pytest.mark.parametrize("transport", ["UDP", "TCP", "TLS", "WS", "WSS"])
def test_wrong_sip_password_counts_over_every_transport(matched, transport):
    more = TAIL.format(response="f8acb5d83ff21e44dafe16a1b77ae4bf")
    assert matched("asterisk", event(transport=transport, more=more)) == "198.51.100.7"
    assert matched("asterisk", event("InvalidAccountID", transport=transport)) == "198.51.100.7"
    assert (
        matched(
            "asterisk", event(family="IPV6", transport=transport, local="2001:db8::1", remote="2001:db8::7", more=more)
        )
        == "2001:db8::7"
    )


def test_ami_and_acl_failures_count(matched):
    assert matched(
        "asterisk",
        event("InvalidPassword", "AMI", transport="TCP", more=',Challenge="",ReceivedChallenge="",ReceivedHash=""'),
    )
    assert matched("asterisk", event("FailedACL", "AMI", transport="TCP", more=',ACLName="not_match_endpoint_acl"'))


@pytest.mark.parametrize("name", ["ChallengeSent", "SuccessfulAuth"])
def test_events_of_every_registration_do_not_count(matched, name):
    assert matched("asterisk", event(name, more=',Challenge=""')) is None


@pytest.mark.parametrize(
    "words",
    [
        {"account": f'a"{FORGED},X="'},
        {"session": f'a"{FORGED},X="'},
        {"session": f'a"{FORGED}'},
        {"session": f'a"{FORGED},Challenge="",Response="x",ExpectedResponse=""'},
        {"account": 'SecurityEvent="FailedACL"', "session": FORGED},
    ],
)
def test_forged_fields_never_match_another_address(matched, words):
    more = TAIL.format(response="f8acb5d83ff21e44dafe16a1b77ae4bf")
    assert matched("asterisk", event(more=more, **words)) == "198.51.100.7"
    assert matched("asterisk", event("InvalidAccountID", **words)) == "198.51.100.7"


def test_forged_response_never_matches_another_address(matched):
    """A response with quotes is never valid, so it need not count; it must not count against another address."""
    more = TAIL.format(response=f'x\\"{FORGED.replace(chr(34), chr(92) + chr(34))},X=\\"')
    assert matched("asterisk", event(more=more)) is None


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("Invalid user guest from 198.51.100.7 port 40022", "198.51.100.7"),
        ("Invalid user  from 203.0.113.9 port 1 from 198.51.100.7 port 40022", "198.51.100.7"),
        ("Invalid user guest from fe80::1%eth0 port 40022", "fe80::1"),
        ("Connection closed by authenticating user root 2001:db8::7 port 40022 [preauth]", "2001:db8::7"),
        ("Disconnected from authenticating user root 198.51.100.7 port 40022 [preauth]", "198.51.100.7"),
        (
            "error: maximum authentication attempts exceeded for root from 198.51.100.7 port 40022 ssh2 [preauth]",
            "198.51.100.7",
        ),
        ("User root from 198.51.100.7 not allowed because not listed in AllowUsers", "198.51.100.7"),
        # Counted above already, or no failure: one refused key of several, a port scan, a successful login.
        ("Connection closed by invalid user guest 198.51.100.7 port 40022 [preauth]", None),
        ("Failed publickey for admin from 198.51.100.7 port 40022 ssh2: ED25519 SHA256:abc", None),
        ("Connection closed by 198.51.100.7 port 40022 [preauth]", None),
        ("Accepted publickey for admin from 198.51.100.7 port 40022 ssh2: ED25519 SHA256:abc", None),
        ("Disconnected from user admin 198.51.100.7 port 40022", None),
    ],
)
def test_sshd_failures_count_once(matched, line, address):
    assert matched("sshd", SSHD + line) == address
    assert matched("sshd", SSHD.replace("sshd", "sshd-session") + line) == address
    assert matched("sshd", SSHD.replace("sshd", "sudo") + line) is None
