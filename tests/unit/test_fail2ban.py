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
    """A function from a filter's name and a line to the matched address, or None; more are parameters of the jail."""
    secrets = tmp_path_factory.mktemp("secrets")

    def read(name: str, line: str, **parameters: str) -> str | None:
        known = rendering.variables(rendering.FACTS["Ubuntu 18.04"], {}, secrets, "fail2ban")
        template = rendering.ROLES / f"fail2ban/templates/etc/fail2ban/filter.d/labredes-{name}.conf.j2"
        parser = configparser.ConfigParser()
        parser.read_string(rendering.render(template, known))
        definition = {**parser["Definition"], **dict(parser.items("Init") if "Init" in parser else []), **parameters}
        for expression in definition["failregex"].split("\n"):
            expression = expression.replace("<transports>", definition.get("transports", ""))
            if found := re.search(
                expression.replace("<ADDR>", r"(?P<address>\d+(?:\.\d+){3}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*)"), line
            ):
                return found["address"]
        return None

    return read


@pytest.mark.parametrize("transport", ["TCP", "TLS", "WS", "WSS"])
def test_wrong_sip_password_counts_where_the_address_is_proved(matched, transport):
    more = TAIL.format(response="f8acb5d83ff21e44dafe16a1b77ae4bf")
    assert matched("asterisk", event(transport=transport, more=more)) == "198.51.100.7"
    assert matched("asterisk", event(transport=transport, account="<unknown>", more=more)) == "198.51.100.7"
    ipv6 = event(family="IPV6", transport=transport, local="2001:db8::1", remote="2001:db8::7", more=more)
    assert matched("asterisk", ipv6) == "2001:db8::7"
    assert matched("asterisk", ipv6, transports="UDP") is None


def test_wrong_sip_password_over_udp_only_slows_down(matched):
    line = event(transport="UDP", more=TAIL.format(response="f8acb5d83ff21e44dafe16a1b77ae4bf"))
    assert matched("asterisk", line) is None
    assert matched("asterisk", line, transports="UDP") == "198.51.100.7"


# Every event of include/asterisk/security_events_defs.h, with the values that its line has after the address.
EVENTS = {
    "FailedACL": ',ACLName="registrar_attempt_exceeds_maximum_configured_contacts"',
    "InvalidAccountID": "",
    "SessionLimit": "",
    "MemoryLimit": "",
    "LoadAverageLimit": "",
    "RequestNotSupported": ',RequestType="registrar_requested_aor_not_found"',
    "RequestNotAllowed": ',RequestType="Originate"',
    "AuthMethodNotAllowed": ',AuthMethod="plain"',
    "RequestBadFormat": ',RequestType="x"',
    "SuccessfulAuth": ',UsingPassword="1"',
    "UnexpectedAddress": ',ExpectedAddress="IPV4/UDP/192.0.2.7/5060"',
    "ChallengeResponseFailed": TAIL.format(response="f8acb5d83ff21e44dafe16a1b77ae4bf"),
    "InvalidPassword": ',Challenge="",ReceivedChallenge="",ReceivedHash=""',
    "ChallengeSent": ',Challenge="1795395693/bf5b51f6201f9b7f"',
    "InvalidTransport": ',AttemptedTransport="UDP"',
}
FAILED_LOGINS = {
    "PJSIP": {"ChallengeResponseFailed"},
    "AMI": {"FailedACL", "InvalidAccountID", "InvalidPassword", "ChallengeResponseFailed"},
}


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("service", FAILED_LOGINS)
def test_only_failed_logins_count(matched, service, name):
    """What the README says of each event."""
    line = event(name, service, transport="TCP", more=EVENTS[name])
    counts = name in FAILED_LOGINS[service]
    assert matched("asterisk", line) == ("198.51.100.7" if counts else None)
    over_udp = event(name, service, transport="UDP", more=EVENTS[name])
    assert matched("asterisk", over_udp) is None
    readme = (rendering.ROLES / "fail2ban/README.md").read_text()
    row = re.search(rf"^\| `{name}` \| (.*) \| (.*) \|$", readme, re.MULTILINE).groups()
    assert dict(zip(FAILED_LOGINS, row, strict=True))[service].startswith("yes" if counts else "no")


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
    assert matched("asterisk", event(transport="TCP", more=more, **words)) == "198.51.100.7"
    assert matched("asterisk", event("InvalidAccountID", "AMI", transport="TCP", **words)) == "198.51.100.7"


def test_forged_fields_never_make_udp_a_proved_transport(matched):
    forged = FORGED.replace("UDP", "TCP")
    more = TAIL.format(response="f8acb5d83ff21e44dafe16a1b77ae4bf")
    for words in ({"account": f'a"{forged},X="'}, {"session": f'a"{forged}'}, {"session": f'a"{forged},Challenge="'}):
        assert matched("asterisk", event(more=more, **words)) is None
    assert matched("asterisk", event(more=TAIL.format(response=f'x\\"{forged}'))) is None


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


@pytest.fixture
def jails(tmp_path):
    """Every jail with its settings, for a description."""

    def read(**description) -> configparser.ConfigParser:
        known = rendering.variables(rendering.FACTS["Ubuntu 18.04"], description, tmp_path, "fail2ban")
        parser = configparser.ConfigParser(interpolation=None)
        for template in sorted((rendering.ROLES / "fail2ban/templates/etc/fail2ban/jail.d").iterdir()):
            parser.read_string(rendering.render(template, known))
        return parser

    return read


def test_ignored_networks_reach_every_jail_and_limit(jails, tmp_path):
    networks = ["198.51.100.0/24", "2001:db8::/32"]
    found = jails(fail2ban_ignore_networks=networks)
    enabled = [name for name in found.sections() if found[name]["enabled"] == "true"]
    assert sorted(enabled) == ["labredes-asterisk", "labredes-asterisk-udp", "labredes-sshd"]
    for name in enabled:
        assert found[name]["ignoreip"] == "127.0.0.0/8 ::1 192.0.2.10 198.51.100.0/24 2001:db8::/32"
    known = {"fail2ban_ignore_networks": networks}
    known = rendering.variables(rendering.FACTS["Ubuntu 18.04"], known, tmp_path, "fail2ban")
    limits = rendering.render(
        rendering.ROLES / "fail2ban/templates/etc/fail2ban/action.d/labredes-sip-udp.nft.j2", known
    )
    assert "ip saddr { 127.0.0.0/8, 192.0.2.10/32, 198.51.100.0/24 } accept" in limits
    assert "ip6 saddr { ::1/128, 2001:db8::/32 } accept" in limits


def test_a_ban_closes_the_attacked_service_alone(jails):
    found = jails(labredes_ssh_port=3524, labredes_sip_port=15060)
    assert found["labredes-sshd"]["action"] == 'labredes[name=sshd, ports="22, 3524"]'
    assert found["labredes-asterisk"]["action"] == 'labredes[name=asterisk, ports="15060, 5061, 8088, 8089, 5038"]'
    assert found["labredes-asterisk-udp"]["action"] == "labredes-sip-udp"
