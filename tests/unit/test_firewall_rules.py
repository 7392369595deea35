"""Networks, ports and rules of role firewall: what it renders, and what it refuses."""

from __future__ import annotations

import subprocess

import pytest
import rendering
import yaml
from ansible_collections.labredes.pbx.plugins.filter.firewall import firewall_allows, networks_of, port_ranges

SSH = {"name": "ssh", "protocol": "tcp", "ports": [3524, "22"], "networks": ["192.0.2.0/24", "2001:db8::/32"]}


def test_networks_are_split_by_family_and_merged():
    given = ["192.0.2.7", "192.0.2.0/24", "2001:DB8::/32", "198.51.100.0/25", "198.51.100.128/25", "2001:db8:1::/48"]
    assert networks_of(given, 4) == ["192.0.2.0/24", "198.51.100.0/24"]
    assert networks_of(given, 6) == ["2001:db8::/32"]
    assert networks_of(["198.51.100.0/24", "0.0.0.0/0", "::/0"], 4) == ["0.0.0.0/0"]
    assert networks_of([], 4) == networks_of(["::/0"], 4) == []


def test_ports_are_merged_into_ranges():
    assert port_ranges([5060, "22", "22"]) == ["22", "5060"]
    assert port_ranges(["8000-8010", "8005-8020", 8021, 9]) == ["9", "8000-8021"]
    assert port_ranges([]) == []


@pytest.mark.parametrize(
    ("address", "port", "allowed"),
    [
        ("192.0.2.7", 22, True),
        ("192.0.2.7", 3524, True),
        ("192.0.2.7", 80, False),
        ("198.51.100.1", 22, False),
        ("::ffff:192.0.2.7", 22, True),
        ("2001:db8::7", 22, True),
        ("fe80::1%eth0", 22, False),
    ],
)
def test_rules_allow_listed_networks_and_ports(address, port, allowed):
    assert firewall_allows([SSH], address, port) is allowed
    assert not firewall_allows([{**SSH, "protocol": "udp"}], address, port)
    assert not firewall_allows([{**SSH, "networks": []}], address, port)


def test_each_rule_has_one_line_per_address_family(tmp_path):
    known = rendering.variables(rendering.FACTS["Ubuntu 18.04"], rendering.UNUSUAL, tmp_path, "firewall")
    text = rendering.render(rendering.ROLES / "firewall/templates/etc/nftables.conf.j2", known)
    assert [line.strip() for line in text.splitlines() if "dport {" in line and "comment" in line] == [
        'meta nfproto ipv4 tcp dport { 22, 3524 } accept comment "ssh"',
        'meta nfproto ipv6 tcp dport { 22, 3524 } accept comment "ssh"',
        'ip saddr { 192.0.2.0/24 } udp dport { 10000-11999 } accept comment "rtp"',
        'ip6 saddr { 2001:db8::/32 } udp dport { 10000-11999 } accept comment "rtp"',
        'meta nfproto ipv6 tcp dport { 80, 443, 8000-8020 } accept comment "web"',
        'ip saddr { 192.0.2.0/29 } udp dport { 53 } accept comment "dns 2"',
    ]


@pytest.mark.parametrize(
    ("host", "limit"),
    [
        ("Debian 11", "ct count over 150"),
        ("Debian 12", "ct count over 150"),
        ("Ubuntu 18.04", "timeout 10m limit rate over 1/second burst 150 packets"),
    ],
)
def test_connections_of_one_address_are_limited_as_nft_can(tmp_path, host, limit):
    rule = {**SSH, "name": "sip", "ports": [5060], "connections": "150"}
    known = rendering.variables(rendering.FACTS[host], {"firewall_extra_rules": []}, tmp_path, "firewall")
    known = {**known, "firewall_rules": [SSH, {**rule, "networks": []}, rule]}
    text = rendering.render(rendering.ROLES / "firewall/templates/etc/nftables.conf.j2", known)
    new = "tcp dport { 5060 } ct state new meter connections2"
    assert [line.strip() for line in text.splitlines() if " meter " in line] == [
        f"meta nfproto ipv4 {new}-4 {{ ip saddr {limit} }} drop",
        f"meta nfproto ipv6 {new}-6 {{ ip6 saddr and ffff:ffff:ffff:ffff:: {limit} }} drop",
    ]


UNITS = "Id={}.service\nActiveState={}\nUnitFileState={}\n"


@pytest.mark.parametrize(
    ("unit", "state", "files", "others"),
    [
        ("nftables", "active", "nftables.conf:add table inet labredes", []),
        ("nftables", "active", "nftables.conf:table inet filter", ["nftables"]),
        ("nftables", "inactive", "nftables.conf:table inet filter", []),
        ("firewalld", "active", "", ["firewalld"]),
        ("netfilter-persistent", "active", "iptables/rules.v4:-A INPUT -j REJECT", ["netfilter-persistent"]),
        ("netfilter-persistent", "active", "", []),
        ("nftables", "inactive", "ufw/ufw.conf:ENABLED=yes", ["ufw"]),
        ("nftables", "inactive", "ufw/ufw.conf:ENABLED=yes\nin force: :INPUT DROP [0:0]", ["ufw"]),
        ("nftables", "inactive", "in force: -A INPUT -j REJECT --reject-with icmp-host-prohibited", ["iptables"]),
    ],
)
def test_other_firewalls_are_found(tmp_path, unit, state, files, others):
    """In the output of tasks/inspect.yml, whose first unit is always an inactive one."""
    output = "\n".join([UNITS.format("other", "inactive", ""), UNITS.format(unit, state, "disabled"), files])
    known = rendering.variables(rendering.FACTS["Ubuntu 18.04"], {}, tmp_path, "firewall")
    template = tmp_path / "others.j2"
    template.write_text("{{ __firewall_others | join(' ') }}")
    assert rendering.render(template, {**known, "__firewall_found": {"stdout": output}}).split() == others


# As Oracle's images ship them; then what fail2ban and Docker add, which are no firewalls.
CLOUD = (
    "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT --reject-with x\nCOMMIT\n"
)
BANS = (
    "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n-A INPUT -p tcp -j f2b-sshd\n-A f2b-sshd -s 192.0.2.1 -j DROP\n"
)


@pytest.mark.parametrize(("rules", "found"), [(CLOUD, True), (BANS, False), (":INPUT DROP [0:0]\n", True), ("", False)])
def test_rules_of_iptables_in_force_are_found(tmp_path, rules, found):
    known = rendering.variables(rendering.FACTS["Ubuntu 18.04"], {}, tmp_path, "firewall")
    tasks = yaml.safe_load((rendering.ROLES / "firewall/tasks/inspect.yml").read_text())
    (command,) = (task["labredes.pbx.look"]["script"] for task in tasks if task["name"].endswith("other firewalls"))
    for name, text in {"systemctl": "", "ip6tables-legacy-save": rules}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
        (tmp_path / name).chmod(0o755)
    shell = ["sh", "-c", rendering.evaluate(command, known).replace("cd /etc\n", f"cd {tmp_path}\n")]
    shown = subprocess.run(
        shell, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False
    ).stdout
    others = rendering.evaluate("{{ __firewall_others }}", {**known, "__firewall_found": {"stdout": shown}})
    assert others == ["iptables"] * found, shown
