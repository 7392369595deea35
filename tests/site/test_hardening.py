"""Hardening of the finished host: audit tools, logins, TLS, secrets, kernel settings, and a reboot."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import playbook
import pytest
import sipp

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "lab"))

import host as lab_host  # noqa: E402

import inventory  # noqa: E402

# Records every command line on the host until it is stopped.
WATCHER = """
import glob, time
seen = set()
with open('/run/command-lines', 'w', buffering=1) as kept:
    while True:
        for path in glob.glob('/proc/[0-9]*/cmdline'):
            try:
                line = open(path, errors='replace').read()
            except OSError:
                continue
            if line not in seen:
                seen.add(line)
                kept.write(line.replace(chr(0), ' ') + chr(10))
        time.sleep(0.01)
"""


@pytest.fixture
def play(lab_directory):
    """A function that runs site.yml on the lab host with more arguments and returns its output; it must succeed."""

    def run(*arguments: str) -> str:
        done = playbook.play(lab_directory, *arguments)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout + done.stderr

    return run


def generated_secrets(directory: Path) -> list[str]:
    """Every secret in a directory."""
    return [path.read_text().strip() for path in directory.rglob("*") if path.is_file()]


def test_audit_tools_pass(lab_directory):
    done = subprocess.run(
        [sys.executable, ROOT / "tests/tools/audit.py", "--without-kills", "--dir", lab_directory],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["ssh_audit"]["passed"] and figures["svcrack"]["slowed_down"]


def test_ssh_offers_no_password_login(lab):
    options = [
        "-o",
        "PubkeyAuthentication=no",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=no",
        "-o",
        "NumberOfPasswordPrompts=1",
        "-o",
        "PreferredAuthentications=password,keyboard-interactive",
    ]
    tried = subprocess.run(
        ["ssh", "-F", "none", *options, "-p", str(lab["ssh"]["port"]), f"root@{lab['host']}", "true"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )
    assert tried.returncode == 255 and "Permission denied (publickey)" in tried.stderr


@pytest.mark.parametrize("kind", ["tls", "wss"])
def test_tls_has_forward_secrecy_and_no_old_version(lab, kind):
    """Checked with OpenSSL's client, which accepts every cipher here."""

    def agreed(*words: str) -> str:
        tried = subprocess.run(
            ["openssl", "s_client", "-connect", f"{lab['host']}:{lab['sip'][kind]}", *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )
        return re.search(r"Cipher is (\S+)", tried.stdout + "Cipher is nothing")[1]

    assert agreed("-tls1_2").startswith("ECDHE-")
    for version in ("-tls1", "-tls1_1"):
        assert agreed(version, "-cipher", "ALL:@SECLEVEL=0") == "(NONE)", version
    assert agreed("-tls1_2", "-cipher", "ALL:!ECDHE:!DHE:@SECLEVEL=0") == "(NONE)"


def test_check_mode_with_diff_shows_no_secret(lab_directory, play):
    """With new secrets, every file that holds one would show the old and the new one in its diff."""
    shown = play("--check", "--diff", "-v", "-e", "labredes_rotate_secrets=all", "--skip-tags", "verify")
    secrets = generated_secrets(lab_directory / "secrets")
    assert len(secrets) > 8 and shown.count("changed:") > 3
    assert [secret for secret in secrets if secret in shown] == []


def test_no_secret_is_in_a_command_line_of_the_host(lab_directory, play, on_lab):
    """While a run creates the PKCS#12 file again, which needs its passphrase."""
    on_lab("rm /etc/ssl/labredes/certificate.p12")
    on_lab(f'systemd-run --quiet --collect --unit=watcher-of-test python3 -c "{WATCHER}"')
    try:
        shown = play("--tags", "database,asterisk,pbx,verify")
    finally:
        on_lab("systemctl stop watcher-of-test")
    lines = on_lab("cat /run/command-lines; rm /run/command-lines")
    assert "openssl pkcs12" in lines and "asterisk -f" in lines
    assert [
        secret for secret in generated_secrets(lab_directory / "secrets") if secret in lines or secret in shown
    ] == []


def test_kernel_settings_are_applied(on_lab):
    for name, value in (
        ("net.ipv4.conf.all.accept_redirects", 0),
        ("net.ipv4.conf.all.log_martians", 1),
        ("net.ipv4.tcp_syncookies", 1),
        ("net.ipv6.conf.all.accept_redirects", 0),
    ):
        assert on_lab(f"sysctl -n {name}").strip() == str(value), name


def test_core_dumps_are_disabled(on_lab):
    limits = on_lab("cat /proc/$(systemctl show --property=MainPID --value asterisk)/limits")
    assert "Max core file size        0                    0" in limits


@pytest.mark.reboots
def test_reboot_keeps_services_firewall_and_bans(lab_directory, lab, play, on_lab):
    name = inventory.read(lab_directory)[0]
    rules = on_lab("nft list table inet labredes | grep -v counter")
    on_lab("fail2ban-client set labredes-asterisk banip 203.0.113.9")
    before = on_lab("cat /proc/sys/kernel/random/boot_id; stat --format=%Z /proc/1")
    lab_host.reboot(name)
    assert on_lab("cat /proc/sys/kernel/random/boot_id; stat --format=%Z /proc/1") != before
    assert lab_host.address(name) == lab["host"]
    assert lab_host.port(lab["host"], lab_directory) == 3524
    assert on_lab("nft list table inet labredes | grep -v counter") == rules
    assert on_lab("systemctl --failed --no-legend --plain") == ""
    for unit in ("asterisk", "postgresql", "fail2ban", "nftables"):
        assert on_lab(f"systemctl is-active {unit} || true").strip() == "active", unit
    assert sipp.within(10, lambda: "Number of jail:\t3" in on_lab("fail2ban-client status"))
    assert sipp.within(10, lambda: "203.0.113.9" in on_lab("fail2ban-client get labredes-asterisk banip"))
    assert on_lab(
        "fail2ban-client unban --all; systemctl list-units --no-legend 'labredes-*-rollback.timer'"
    ).split() == ["1"]
    assert on_lab("sysctl -n net.ipv4.conf.all.log_martians").strip() == "1"
    assert on_lab("journalctl --list-boots | wc -l").strip() != "0" and on_lab("ls /var/log/journal")
    assert "a call went through" in play("--tags", "verify")
