"""Role sshd: keys alone, on a port of its own."""

from __future__ import annotations

import subprocess

import pytest


@pytest.fixture(scope="module")
def effective(host) -> dict[str, str]:
    """The settings that sshd itself reports."""
    lines = host.check_output("sshd -T").splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


def test_sshd_listens_on_its_own_port_only(host, ssh_port):
    assert ssh_port == 3524
    assert host.socket("tcp://0.0.0.0:3524").is_listening
    assert not host.socket("tcp://0.0.0.0:22").is_listening


def test_only_keys_are_accepted(effective):
    assert effective["authenticationmethods"] == "publickey"
    assert effective["passwordauthentication"] == "no"
    assert effective["permitrootlogin"] in ("no", "without-password", "prohibit-password")


def test_password_login_is_not_offered(lab_directory, address):
    options = [f"UserKnownHostsFile={lab_directory}/known_hosts", "BatchMode=yes", "PubkeyAuthentication=no"]
    command = ["ssh", "-F", "none", "-p", "3524", *(word for option in options for word in ("-o", option))]
    login = subprocess.run([*command, f"admin@{address}", "true"], capture_output=True, text=True, timeout=30)
    assert login.returncode == 255
    assert "Permission denied (publickey)" in login.stderr


def test_weak_algorithms_are_not_offered(effective):
    offered = ",".join(effective[name] for name in ("kexalgorithms", "ciphers", "macs", "hostkeyalgorithms"))
    assert "curve25519-sha256" in offered
    assert not [name for name in offered.split(",") if "sha1" in name or "cbc" in name or name == "ssh-rsa"]


def test_no_rollback_is_pending(host):
    assert host.check_output("systemctl list-units --all --no-legend 'labredes-*.timer'") == ""
