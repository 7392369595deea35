"""Playbook validate.yml refuses a bad description in one sentence for each host, before it connects to any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rendering

PHONE = {"number": "6001", "name": "Ana"}
# Each host has one fault; the second item is part of its message.
FAULTS = {
    "release": (
        {"asterisk_package_release": "18.9.99"},
        "release: asterisk_package_release 18.9.99 is unknown; known are 18.2.0, 18.26.4, 20.20.1, 22.10.1,",
    ),
    "option": (
        {"asterisk_package_release": "22.10.1", "asterisk_package_enable": ["cdr_mysql", "pbx_lua"]},
        "option: Asterisk 22.10.1 no longer has cdr_mysql; remove it from asterisk_package_enable and",
    ),
    "extra-option": (
        {"asterisk_package_release": "22.10.1", "asterisk_package_extra_enable": ["app_macro", "cdr_mysql"]},
        "extra-option: Asterisk 22.10.1 no longer has app_macro, cdr_mysql; remove them from",
    ),
    "both": (
        {"asterisk_package_enable": ["pbx_lua"], "asterisk_package_disable": ["pbx_lua"]},
        "both: pbx_lua is enabled by asterisk_package_enable or asterisk_package_extra_enable, and disabled by",
    ),
    "language": (
        {"labredes_language": "fr"},
        "language: there are no pinned sounds for labredes_language fr; choose one of en, es, or pin "
        "asterisk-core-sounds-fr-wav-1.6.1.tar.gz under checksums of",
    ),
    "unpinned": (
        {"asterisk_package_extra_enable": ["EXTRA-SOUNDS-EN-WAV"]},
        "unpinned: asterisk-extra-sounds-en-wav-1.6.1.tar.gz has no checksum; add its sha256 to release 18.2.0 in",
    ),
    "archive": (
        {
            "asterisk_package_release": "18.2.2",
            "asterisk_package_extra_releases": {
                "18.2.2": {
                    "archive": {"name": "asterisk-18.2.2.tar.gz", "checksums": []},
                    "pjproject": {"version": "2.10"},
                    "sounds": {"core": "1.6.1", "moh": "2.03"},
                }
            },
        },
        "archive: asterisk-18.2.2.tar.gz has no checksum; add its sha256 to release 18.2.2 in",
    ),
    "incomplete": (
        {
            "asterisk_package_release": "18.2.2",
            "asterisk_package_extra_releases": {
                "18.2.2": {
                    "commit": "3fb4c584",
                    "pjproject": {"version": "2.10"},
                    "sounds": {"core": "1.6.1", "moh": "2.03"},
                }
            },
        },
        "incomplete: release 18.2.2 in asterisk_package_extra_releases is incomplete; give its commit (40 hexadecimal",
    ),
    "database": (
        {"labredes_database_user": "postgres"},
        'database: labredes_database_user is "postgres"; give a name of lower-case letters, digits and underscores',
    ),
    "columns": ({"postgresql_cdr_columns": {"calldate": "timestamp"}}, "columns: postgresql_cdr_columns lacks "),
    "one-path": (
        {"labredes_tls_certificate": "/etc/letsencrypt/live/pbx/fullchain.pem"},
        "one-path: labredes_tls_certificate is /etc/letsencrypt/live/pbx/fullchain.pem and labredes_tls_key is "
        "/etc/ssl/labredes/key.pem; set both to absolute paths on the host,",
    ),
    "home-path": (
        {"labredes_tls_certificate": "/home/ana/own.pem", "labredes_tls_key": "/home/ana/own.key"},
        "home-path: labredes_tls_certificate is /home/ana/own.pem and",
    ),
    "two-owners": (
        {
            "labredes_tls_certificate": "/etc/own.pem",
            "labredes_tls_key": "/etc/own.key",
            "tls_certificate_own_certificate": "own.pem",
        },
        "and without tls_certificate_own_certificate; or set neither.",
    ),
    "warning": ({"tls_certificate_warn_days": -1}, "warning: tls_certificate_warn_days is -1; give a number of days,"),
    "subject": (
        {"tls_certificate_organization": "a\nb"},
        'subject: tls_certificate_organization is "a\\nb"; a certificate holds one line of up to 64 characters.',
    ),
    "hba": (
        {"postgresql_extra_hba_rules": ["invoices 192.0.2.0/24"]},
        'hba: postgresql_extra_hba_rules has "invoices 192.0.2.0/24", which is no line of pg_hba.conf; write it as',
    ),
    "length": (
        {"labredes_verify_call_seconds": 0},
        "length: labredes_verify_call_seconds is 0; give a number of seconds from 0.1 to 60.",
    ),
    "type": ({"pbx_ring_seconds": "soon"}, "argument 'pbx_ring_seconds' is of type"),
    "choice": (
        {"pbx_codecs": ["opus"]},
        "value of pbx_codecs must be one or more of: ulaw, alaw, g722, gsm. Got no match for: opus",
    ),
    "key": ({"pbx_phones": [{"name": "Ana"}]}, "missing required arguments: number found in pbx_phones"),
    "subkey": (
        {"pbx_phones": [{**PHONE, "nmae": "Eva"}]},
        "pbx_phones.nmae. Supported parameters include: agent, devices,",
    ),
    "spelling": (
        {"pbx_phonse": [PHONE]},
        "spelling: pbx_phonse is not a variable of this collection; did you mean pbx_phones?",
    ),
    "twice": (
        {"pbx_phones": [PHONE, PHONE]},
        "twice: pbx_phones[1]: 6001 is taken by pbx_phones[0]; give it another number.",
    ),
    "bracket": ({"pbx_phones": [{**PHONE, "name": "Ana <jefa>"}]}, "which would break Asterisk's files; leave it out."),
    "agent": (
        {"pbx_queues": [{"name": "Q", "number": "8001", "agents": ["6009"]}]},
        "agent: pbx_queues[0] (Q): agent 6009 is not a phone; add it to pbx_phones or remove it.",
    ),
    "department": (
        {"pbx_call_centres": [{"number": "11888", "departments": {"1": "6009"}}]},
        "department: pbx_call_centres[0] (11888): department 1 is 6009, which is not a phone; add it",
    ),
    "code": (
        {"pbx_conferences": ["7000"]},
        "code: pbx_codes.agent_login: 7000 is taken by pbx_conferences[0]; give it",
    ),
    "service": (
        {"pbx_codes": {"voicemial": "6500"}},
        "pbx_codes.voicemial. Supported parameters include: agent_login, forward, queue_join, queue_leave, unforward,",
    ),
    "email": (
        {"pbx_phones": [{**PHONE, "email": "ana@x.es;reboot"}]},
        "the email 'ana@x.es;reboot' is not an e-mail address;",
    ),
    "agents-name": ({"pbx_phones": [{**PHONE, "agent": "Ana|0"}]}, "the agent 'Ana|0' contains '|', which would break"),
    "pin": ({"pbx_phones": [{**PHONE, "pin": "8888"}]}, "pin: the pin of phone 6001 is one digit repeated"),
    "realm": ({"pbx_realm": "a;b"}, 'realm: pbx_realm "a;b" is not valid; give a domain'),
    "password": (
        {"pbx_phones": [{**PHONE, "password": "a;b"}]},
        "password: the password of phone 6001 contains a character",
    ),
    "rtp": (
        {"labredes_rtp_start": 20000, "labredes_rtp_end": 10000},
        "rtp: labredes_rtp_start 20000 and labredes_rtp_end 10000",
    ),
    "ami": ({"asterisk_ami_users": [{"name": "general"}]}, "ami: asterisk_ami_users names general; each name"),
    "port": ({"labredes_ssh_port": 70000}, "port: labredes_ssh_port is 70000; give a port from 1 to 65535."),
    "left-out": (
        {"ansible_user": "ana", "sshd_allow_users": ["admin"]},
        "left-out: sshd_allow_users does not list ana, as whom Ansible logs in; add that user,",
    ),
    "no-key": (
        {"sshd_authorized_keys": [{"user": "ana", "key": "ssh-ed25519 none"}]},
        "no-key: sshd_authorized_keys has no public key for ana, but ssh-ed25519 none; give the line",
    ),
    "by-password": ({"ansible_password": "secret"}, "by-password: the login is by password, which sshd is about to"),
    "memory": (
        {"asterisk_memory_max": "lots"},
        "memory: asterisk_memory_max lots is not an amount of memory; give one",
    ),
    "sysctl": (
        {"system_sysctl": {"a = 1; b": 1}},
        "sysctl: a = 1; b in system_sysctl or system_kernel_modules_refused",
    ),
    "network": (
        {"labredes_ssh_networks": ["192.0.2.0/33"]},
        "network: labredes_ssh_networks has 192.0.2.0/33, which is not a network; write it as 192.0.2.0/24 or",
    ),
    "ipv6-alone": (
        {"labredes_sip_binds": ["::"]},
        'ipv6-alone: labredes_sip_binds is ["::"]; give one IPv4 address, since phones over IPv4 reach no other, and',
    ),
    "bind-as-text": ({"labredes_sip_binds": "0.0.0.0"}, 'bind-as-text: labredes_sip_binds is "0.0.0.0"; give one'),
    "bind-with-port": (
        {"labredes_sip_binds": ["0.0.0.0:5060"]},
        'bind-with-port: labredes_sip_binds is ["0.0.0.0:5060"]; give one',
    ),
    "two-binds": (
        {"labredes_sip_binds": ["192.0.2.1", "192.0.2.2"]},
        'two-binds: labredes_sip_binds is ["192.0.2.1", "192.0.2.2"]; give one',
    ),
    "renamed-bind": (
        {"labredes_sip_bind": "::"},
        "renamed-bind: labredes_sip_bind is no longer a variable; use labredes_sip_binds.",
    ),
    **{
        f"outside-{number}": (
            {"labredes_external_address": address},
            f'labredes_external_address "{address}" is not an IPv4 address or a host name; give one such',
        )
        for number, address in enumerate(
            ["203.0.113", "203.0.113.7:5060", "0.0.0.0", "2001:db8::1", "pbx", "my pbx.example.org", "224.0.0.1"]
        )
    },
    "outside-inside": (
        {"labredes_external_address": "10.1.2.3"},
        "outside-inside: labredes_external_address 10.1.2.3 lies in one of labredes_local_networks, where phones are",
    ),
    "local": (
        {"labredes_local_networks": ["10.0.0.0/8", "home"]},
        "local: labredes_local_networks has home, which is not a network; write it as",
    ),
    "host-bits": (
        {"labredes_admin_networks": ["2001:db8::7/64"]},
        "labredes_admin_networks has 2001:db8::7/64; write 2001:db8::/64 for the network, or 2001:db8::7 for",
    ),
    "ports": (
        {"firewall_extra_rules": [{"name": "web", "protocol": "tcp", "ports": ["443-80"], "networks": []}]},
        "ports: firewall_extra_rules[0] (web): 443-80 is not a port; give a number from 1 to 65535, or a range",
    ),
    "rule-name": (
        {"firewall_extra_rules": [{"name": 'a" accept', "protocol": "tcp", "ports": [80], "networks": []}]},
        "rule-name: firewall_extra_rules[0]: the name 'a\" accept' is not valid; use only",
    ),
    "protocol": (
        {"firewall_extra_rules": [{"name": "web", "protocol": "http", "ports": [80], "networks": []}]},
        "value of protocol must be one of: tcp, udp, got: http found in firewall_extra_rules",
    ),
    "ban": ({"fail2ban_ban_seconds": 0}, "ban: fail2ban_ban_seconds is 0; give a whole number above 0."),
    "wss": (
        {"labredes_sip_transports": ["udp", "wss"]},
        "wss: labredes_sip_transports has wss, whose port serves ARI as well; set",
    ),
    "zone": (
        {"system_timezone": "madrid; reboot"},
        "zone: system_timezone madrid; reboot is not a time zone; give a name",
    ),
}
GOOD = {
    "pbx_phones": [PHONE, {"number": "6002", "name": "Eva"}],
    "asterisk_package_release": "20.20.1",
    "labredes_sip_binds": ["2001:db8::10", "192.0.2.10"],
    "labredes_external_address": "pbx-1.example.org",
}


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    """The result of validate.yml: its exit code, the failures of each host, and whether ssh was called."""
    directory = tmp_path_factory.mktemp("validation")
    called = directory / "ssh-was-called"
    ssh = directory / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {called}\nexit 255\n")
    ssh.chmod(0o755)
    hosts = {name: variables for name, (variables, _message) in FAULTS.items()} | {"good": GOOD, "bare": {}}
    common = {
        "ansible_host": "192.0.2.1",
        "ansible_ssh_executable": str(ssh),
        "labredes_secrets_dir": str(directory / "secrets"),
    }
    (directory / "hosts.yml").write_text(json.dumps({"pbx": {"vars": common, "hosts": hosts}}))
    return run(rendering.ROOT / "playbooks/validate.yml", directory / "hosts.yml") | {"called": called.exists()}


def run(playbook: Path, inventory: Path) -> dict:
    """Run a playbook and gather, by host, the messages of the tasks that failed."""
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(rendering.ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "json",
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, playbook],
        cwd=rendering.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    output = json.loads(done.stdout[done.stdout.index("{") :])
    failed = {}
    for play in output["plays"]:
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                if result.get("failed"):
                    parts = [
                        result.get("msg", ""),
                        *(item.get("msg", "") for item in result.get("results", []) if item.get("failed")),
                    ]
                    failed.setdefault(host, []).extend(parts)
    return {
        "code": done.returncode,
        "failed": {host: "\n".join(parts) for host, parts in failed.items()},
        "stats": output["stats"],
    }


@pytest.mark.parametrize("host", FAULTS)
def test_bad_description_is_refused_in_a_sentence(validation, host):
    assert FAULTS[host][1] in validation["failed"].get(host, "no failure")


def test_good_description_passes(validation):
    assert set(validation["failed"]) == set(FAULTS)
    assert validation["code"] != 0
    for host in ("good", "bare"):
        assert validation["stats"][host]["failures"] == validation["stats"][host]["changed"] == 0


def test_validation_connects_to_no_host(validation):
    assert not validation["called"]
    assert not any(stats["unreachable"] for stats in validation["stats"].values())
