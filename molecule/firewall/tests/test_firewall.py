"""Roles firewall and fail2ban: what is not allowed is dropped, and brute-force attempts are banned."""

from __future__ import annotations

import re
import socket
import subprocess
import time

import pytest

ATTACKER = "203.0.113.9"


@pytest.fixture
def listener(host):
    """The port of a service on the host that no rule allows."""
    host.check_output("systemd-run --quiet --unit=listener-of-test python3 -m http.server 18080")
    end = time.monotonic() + 10
    while not host.socket("tcp://0.0.0.0:18080").is_listening and time.monotonic() < end:
        time.sleep(0.2)
    yield 18080
    host.check_output("systemctl stop listener-of-test")


def test_port_without_a_rule_is_dropped(host, address, listener):
    host.check_output(f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {listener}), 5)'")
    with pytest.raises(TimeoutError):
        socket.create_connection((address, listener), timeout=2)


def test_port_with_a_rule_is_open(address):
    socket.create_connection((address, 22), timeout=5).close()


def test_rules_are_loaded_at_boot(host):
    assert host.service("nftables").is_enabled
    assert "policy drop" in host.check_output("nft list chain inet labredes input")


def test_banned_address_is_dropped_by_the_firewall(host):
    assert host.service("fail2ban").is_running and host.service("fail2ban").is_enabled
    host.check_output(f"fail2ban-client set labredes-sshd banip {ATTACKER}")
    try:
        assert ATTACKER in host.check_output("nft list ruleset")
    finally:
        host.check_output(f"fail2ban-client set labredes-sshd unbanip {ATTACKER}")
    assert ATTACKER not in host.check_output("nft list ruleset")


def test_failed_ssh_login_counts_as_an_attack(host, address):
    """Read as fail2ban reads the journal; the address of the lab itself is never banned."""

    def matches() -> int:
        shown = host.check_output("fail2ban-regex systemd-journal /etc/fail2ban/filter.d/labredes-sshd.conf")
        return int(re.search(r"^Lines: .* (\d+) matched", shown, re.MULTILINE)[1])

    before = matches()
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
    command = ["ssh", "-F", "none", *(word for option in options for word in ("-o", option)), f"nobody-here@{address}"]
    assert subprocess.run([*command, "true"], capture_output=True, timeout=30).returncode == 255
    assert matches() > before
