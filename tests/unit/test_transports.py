"""SIP's transports on hosts with and without IPv6, and what they announce outside of a NAT."""

from __future__ import annotations

import asterisk_files
import pytest
import rendering
import yaml
from ansible_collections.labredes.pbx.plugins.filter.networks import ip_version, outside

TRANSPORTS = rendering.ROLES / "pbx/templates/etc/asterisk/pjsip_transports.conf.j2"
CONFIGURE = rendering.ROLES / "pbx/tasks/configure.yml"
EVERY = ["udp", "tcp", "tls", "wss"]


@pytest.fixture
def known(tmp_path):
    """A function from facts and a description to the variables of a role, pbx by default."""

    def variables(facts: dict | None = None, role: str = "pbx", **description: object) -> dict:
        all_facts = {**rendering.FACTS["Debian 12"], **(facts or {})}
        return rendering.variables(all_facts, {"labredes_sip_transports": EVERY, **description}, tmp_path, role)

    return variables


def transports(variables: dict) -> dict:
    """The sections of the file, by name."""
    return {section.name: section for section in asterisk_files.parse(rendering.render(TRANSPORTS, variables))}


def test_each_family_has_a_transport_of_its_own(known):
    found = {name: section.get("bind") for name, section in transports(known()).items()}
    assert found == {
        "udp_transport": "0.0.0.0:5060",
        "udp6_transport": "[::]:5060",
        "tcp_transport": "0.0.0.0:5060",
        "tcp6_transport": "[::]:5060",
        "tls_transport": "0.0.0.0:5061",
        "tls6_transport": "[::]:5061",
        "wss_transport": "0.0.0.0",
    }


def test_host_without_ipv6_has_no_transport_for_it(known):
    names = [f"{protocol}_transport" for protocol in EVERY]
    for facts in ({"all_ipv6_addresses": []}, {"all_ipv6_addresses": None}):
        assert list(transports(known(facts))) == names
    assert list(transports(known(labredes_sip_binds=["0.0.0.0"]))) == names


def test_external_address_is_announced_over_ipv4_alone(known):
    description = {
        "labredes_external_address": "pbx.example.org",
        "labredes_local_networks": ["10.0.0.0/8", "fd00::/8"],
    }
    for name, section in transports(known(**description)).items():
        settings = [(key, value) for key, value in section.settings if "external" in key or key == "local_net"]
        assert settings == (
            [
                ("external_signaling_address", "pbx.example.org"),
                ("external_media_address", "pbx.example.org"),
                ("local_net", "10.0.0.0/8"),
            ]
            if name in ("udp_transport", "tcp_transport", "tls_transport")
            else []
        ), name


def test_wss_may_listen_on_ipv6(known):
    variables = known(labredes_https_bind="::", asterisk_http_tls=True)
    text = rendering.render(rendering.ROLES / "asterisk/templates/etc/asterisk/http.conf.j2", variables)
    assert "\ntlsbindaddr = [::]:8089\n" in text
    binds = rendering.evaluate(
        "{{ dict(__pbx_transports | map(attribute='name') | zip(__pbx_transports)) }}", variables
    )
    assert binds["wss"]["bind"] == "[::]:8089"


@pytest.mark.parametrize(
    ("address", "offered"), [("203.0.113.7", ["203.0.113.7,include_local_address"]), ("pbx.example.org", []), ("", [])]
)
def test_browsers_are_offered_the_external_address_too(known, address, offered):
    text = rendering.render(
        rendering.ROLES / "asterisk/templates/etc/asterisk/rtp.conf.j2",
        known(role="asterisk", labredes_external_address=address),
    )
    sections = {section.name: section.settings for section in asterisk_files.parse(text)}
    assert [value.lstrip("> ") for _key, value in sections.get("ice_host_candidates", [])] == offered


@pytest.mark.parametrize(
    ("address", "description", "reported"),
    [
        ("10.0.0.5", {}, True),
        ("10.0.0.5", {"labredes_sip_networks": ["10.0.0.0/8", "198.51.100.0/24"]}, True),
        ("10.0.0.5", {"labredes_sip_networks": ["10.0.0.0/8", "2001:db8::/32"]}, False),
        ("10.0.0.5", {"labredes_external_address": "203.0.113.7"}, False),
        ("203.0.113.7", {}, False),
        (None, {}, False),
    ],
)
def test_private_address_alone_is_reported(known, address, description, reported):
    (task,) = [task for task in yaml.safe_load(CONFIGURE.read_text()) if "would hear nothing" in task["name"]]
    facts = {"default_ipv4": {"address": address} if address else {}}
    variables = {**known(facts, **description), **rendering.trusted(task["vars"])}
    assert all(rendering.evaluate(f"{{{{ {condition} }}}}", variables) for condition in task["when"]) == reported
    if reported:
        text = rendering.evaluate(task["ansible.builtin.debug"]["msg"], variables)
        assert "10.0.0.5" in text and "labredes_external_address" in text


@pytest.mark.parametrize(
    ("text", "version"),
    [("192.0.2.1", 4), ("0.0.0.0", 4), ("::", 6), ("2001:db8::1", 6), ("192.0.2.0/24", 0), ("224.0.0.1", 0)]
    + [(text, 0) for text in ("[::]", "fe80::1%eth0", "::ffff:192.0.2.1", "192.0.2", "pbx.example.org", "", 5, None)],
)
def test_version_of_an_address(text, version):
    assert ip_version(text) == version


def test_networks_outside_of_others():
    local = ["10.0.0.0/8", "192.168.0.0/16"]
    assert outside(["10.1.0.0/16", "10.0.0.5", "0.0.0.0/0", "::/0", "192.168.0.0/15"], local) == [
        "0.0.0.0/0",
        "::/0",
        "192.168.0.0/15",
    ]
    assert outside(["10.0.0.5"], []) == ["10.0.0.5"]
