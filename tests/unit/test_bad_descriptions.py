"""Playbook validate.yml refuses a bad description in one sentence for each host, before it connects to any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rendering

HASH = f"scrypt$16384$8$5${'A' * 22}==${'A' * 43}="
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
        'incomplete: asterisk_package_extra_releases.18.2.2.commit is "3fb4c584"; give the 40 hexadecimal digits of a',
    ),
    "database": (
        {"labredes_database_user": "postgres"},
        'database: labredes_database_user is "postgres"; give a name of lower-case letters, digits and underscores',
    ),
    "columns": (
        {"labredes_cdr_columns": {"calldate": "timestamp"}},
        "columns: labredes_cdr_columns lacks clid, src, dst,",
    ),
    "view": (
        {"labredes_database_table": "calls"},
        "view: labredes_database_table is calls, the name of the view of calls; give another name.",
    ),
    "far-records": (
        {"asterisk_cdr_pgsql": "yes", "labredes_database_host": "db.example.org"},
        "far-records: asterisk_cdr_pgsql is true and the database is on db.example.org; leave asterisk_cdr_pgsql out,",
    ),
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
    "warning": ({"tls_certificate_warn_days": -1}, "warning: tls_certificate_warn_days is -1; give a number of days"),
    "subject": (
        {"tls_certificate_organization": "a\nb"},
        'subject: tls_certificate_organization is "a\\nb"; give a text of one line and up to 64 characters.',
    ),
    "hba": (
        {"postgresql_extra_hba_rules": ["invoices 192.0.2.0/24"]},
        'hba: postgresql_extra_hba_rules[0] is "invoices 192.0.2.0/24"; give a line of pg_hba.conf, as type,',
    ),
    "length": (
        {"labredes_verify_call_seconds": 0},
        "length: labredes_verify_call_seconds is 0; give a number of seconds from 0.1 to 60.",
    ),
    "type": (
        {"pbx_ring_seconds": "soon"},
        'type: pbx_ring_seconds is "soon"; give a number of seconds from 1 to 3600.',
    ),
    "choice": ({"pbx_codecs": ["opus"]}, 'choice: pbx_codecs[0] is "opus"; give one of ulaw, alaw, g722, gsm.'),
    "key": ({"pbx_phones": [{"name": "Ana"}]}, "key: pbx_phones[0] has no number; give 2 to 10 digits, in quotes."),
    "subkey": (
        {"pbx_phones": [{**PHONE, "nmae": "Eva"}]},
        'subkey: pbx_phones[0] has the unknown key "nmae"; did you mean name?',
    ),
    "spelling": (
        {"pbx_phonse": [PHONE]},
        "spelling: pbx_phonse is not a variable of this collection; did you mean pbx_phones?",
    ),
    "twice": (
        {"pbx_phones": [PHONE, PHONE]},
        "twice: pbx_phones[1]: 6001 is taken by pbx_phones[0]; give it another number.",
    ),
    "bracket": ({"pbx_phones": [{**PHONE, "name": "Ana <jefa>"}]}, 'pbx_phones[0].name is "Ana <jefa>"; give a text'),
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
        'service: pbx_codes has the unknown key "voicemial"; did you mean voicemail?',
    ),
    "email": (
        {"pbx_phones": [{**PHONE, "email": "ana@x.es;reboot"}]},
        'email: pbx_phones[0].email is "ana@x.es;reboot"; give an e-mail address, or leave it out.',
    ),
    "agents-name": (
        {"pbx_phones": [{**PHONE, "agent": "Ana|0"}]},
        'agents-name: pbx_phones[0].agent is "Ana|0"; give a text of',
    ),
    "pin": (
        {"pbx_phones": [{**PHONE, "pin": "8888"}]},
        "pin: pbx_phones[0].pin is one digit repeated or digits in a row; choose",
    ),
    "realm": ({"pbx_realm": "a;b"}, 'realm: pbx_realm is "a;b"; give a domain name.'),
    "password": (
        {"pbx_phones": [{**PHONE, "password": "a;b"}]},
        "password: pbx_phones[0].password contains a character other than",
    ),
    "rtp": (
        {"labredes_rtp_start": 20000, "labredes_rtp_end": 10000},
        "rtp: labredes_rtp_start 20000 and labredes_rtp_end 10000",
    ),
    "ami": ({"asterisk_ami_users": [{"name": "general"}]}, 'ami: asterisk_ami_users[0].name is "general"; give'),
    "port": ({"labredes_ssh_port": 70000}, "port: labredes_ssh_port is 70000; give a port from 1 to 65535."),
    "left-out": (
        {"ansible_user": "ana", "sshd_allow_users": ["admin"]},
        "left-out: sshd_allow_users does not list ana, as whom Ansible logs in; add that user,",
    ),
    "no-key": (
        {"sshd_authorized_keys": [{"user": "ana", "key": "ssh-ed25519 none"}]},
        'no-key: sshd_authorized_keys[0].key is "ssh-ed25519 none"; give a public key, the line',
    ),
    "by-password": ({"ansible_password": "secret"}, "by-password: the login is by password, which sshd is about to"),
    "memory": (
        {"asterisk_memory_max": "lots"},
        'memory: asterisk_memory_max is "lots"; give an amount of memory such as 2G',
    ),
    "sysctl": (
        {"system_sysctl": {"a = 1; b": 1}},
        'sysctl: system_sysctl has the key "a = 1; b"; give names of kernel settings',
    ),
    "network": (
        {"labredes_ssh_networks": ["192.0.2.0/33"]},
        'network: labredes_ssh_networks[0] is "192.0.2.0/33"; give a network such as 192.0.2.0/24 or',
    ),
    "ipv6-alone": (
        {"labredes_sip_binds": ["::"]},
        'ipv6-alone: labredes_sip_binds is ["::"]; give one IPv4 address, since phones over IPv4 reach no other, and',
    ),
    "bind-as-text": ({"labredes_sip_binds": "0.0.0.0"}, "labredes_sip_binds is a single value; give a list"),
    "bind-with-port": (
        {"labredes_sip_binds": ["0.0.0.0:5060"]},
        'bind-with-port: labredes_sip_binds[0] is "0.0.0.0:5060"; give an IP address',
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
            f'labredes_external_address is "{address}"; give an IPv4 address or a host name, such',
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
        'local: labredes_local_networks[1] is "home"; give a network such as',
    ),
    "host-bits": (
        {"labredes_admin_networks": ["2001:db8::7/64"]},
        'labredes_admin_networks[0] is "2001:db8::7/64"; give 2001:db8::/64 for the network, or 2001:db8::7 for',
    ),
    "ports": (
        {"firewall_extra_rules": [{"name": "web", "protocol": "tcp", "ports": ["443-80"], "networks": []}]},
        'ports: firewall_extra_rules[0].ports[0] is "443-80"; give a port from 1 to 65535, or a range',
    ),
    "rule-name": (
        {"firewall_extra_rules": [{"name": 'a" accept', "protocol": "tcp", "ports": [80], "networks": []}]},
        'rule-name: firewall_extra_rules[0].name is "a\\" accept"; give 1 to 41 letters',
    ),
    "protocol": (
        {"firewall_extra_rules": [{"name": "web", "protocol": "http", "ports": [80], "networks": []}]},
        'protocol: firewall_extra_rules[0].protocol is "http"; give one of tcp, udp.',
    ),
    "ban": ({"fail2ban_ban_seconds": 0}, "ban: fail2ban_ban_seconds is 0; give a number of seconds from 1 to"),
    "wss": (
        {"labredes_sip_transports": ["udp", "wss"]},
        "wss: labredes_sip_transports has wss, whose port serves ARI as well; set",
    ),
    "zone": (
        {"system_timezone": "madrid; reboot"},
        'zone: system_timezone is "madrid; reboot"; give a name of the tz database',
    ),
}
FAULTS |= {
    "own-key": (
        {"tls_certificate_own_certificate": "/etc/hostname"},
        'own-key: tls_certificate_own_key is "", which is no file on the controller; give the paths of both',
    ),
    "no-file": (
        {"tls_certificate_own_certificate": "/no/such.pem", "tls_certificate_own_key": "/no/such.pem"},
        'no-file: tls_certificate_own_certificate is "/no/such.pem", which is no file on the controller',
    ),
    "empty-code": (
        {"pbx_codes": {"forward": ""}},
        'empty-code: pbx_codes.forward is ""; give 2 to 10 digits, in quotes',
    ),
    "webrtc": (
        {"pbx_phones": [{**PHONE, "webrtc": True}], "labredes_events_enabled": False},
        "webrtc: pbx_phones[0] (6001): has webrtc, but labredes_events_enabled is false and labredes_sip_transports",
    ),
    "permit": (
        {"asterisk_ami_users": [{"name": "monitor", "permit": ["not-a-net"]}]},
        'permit: asterisk_ami_users[0].permit[0] is "not-a-net"; give a network such as',
    ),
    "in-rtp": (
        {"labredes_sip_port": 10500},
        "in-rtp: labredes_sip_port 10500 is within labredes_rtp_start 10000 and labredes_rtp_end 11999; move one",
    ),
    "same-port": (
        {"labredes_ami_port": 5061},
        "same-port: labredes_ami_port is 5061, as is labredes_sip_tls_port; give each service a port of its own.",
    ),
    "low-port": (
        {"labredes_https_port": 443},
        "low-port: labredes_https_port is 443; give a port from 1024, since the service does not run as root.",
    ),
    "undefined": (
        {"pbx_phones": [{**PHONE, "password": "{{ vault_ana }}"}]},
        "undefined: pbx_phones uses vault_ana, which is not defined; correct its template.",
    ),
    "broken-template": ({"pbx_realm": "{{ a b }}"}, "broken-template: pbx_realm cannot be evaluated; correct its"),
    "empty": ({"labredes_sip_port": None}, "empty: labredes_sip_port is empty; give a port from 1 to 65535, or leave"),
    "secretz": (
        {"labredes_secretz": {}},
        "secretz: labredes_secretz is not a variable of this collection; did you mean labredes_secrets?",
    ),
    "misspelt-secret": (
        {"labredes_secrets": {"phne_6001": "kR7vTz0qWm2xBn5c"}},
        'misspelt-secret: labredes_secrets has the key "phne_6001"; give names of secrets',
    ),
    "reserved": (
        {"asterisk_ami_users": [{"name": "events"}]},
        'reserved: asterisk_ami_users[0].name is "events"; give 1 to 40 letters, digits, _ and -, but not general,',
    ),
    "nobody": (
        {"events_users": []},
        "nobody: events_users is empty; give a list of users, or labredes_events_enabled: false.",
    ),
    "events-port": (
        {"labredes_events_port": 8088},
        "events-port: labredes_events_port is 8088, as is labredes_http_port; give each service a port of its own.",
    ),
    "two-passwords": (
        {"events_users": [{"name": "ana", "password": "kR7vTz0qWm2xBn5c", "password_hash": HASH}]},
        "two-passwords: events_users[0] (ana) has a password and a password_hash; remove one of the two.",
    ),
    "reader": (
        {"labredes_database_reader": "asterisk"},
        "reader: labredes_database_reader is asterisk, as is labredes_database_user; give the reader a name",
    ),
    "server": (
        {"labredes_database_server": "db9"},
        'server: labredes_database_server is "db9", which is no host of the inventory; add it, or',
    ),
}
RIGHT = {
    "bare": {},
    "good": {"pbx_phones": [PHONE, {"number": "6002", "name": "Eva"}], "asterisk_package_release": "20.20.1"},
    "odd": {
        "pbx_phones": [
            {"number": "1234567890", "name": "Ñoño d'Émile, S.A.", "mailbox": "no", "email": "o'brien@example.com"},
            {"number": 6001, "name": "李雷", "agent": "Ana d'Émile", "password": "Caballo-Bateria-Grapa"},
        ],
        "pbx_queues": [{"name": "Q", "number": "8001", "agents": [6001], "timeout": "30"}],
        "firewall_enabled": "no",
        "labredes_sip_binds": ["2001:db8::10", "192.0.2.10"],
        "labredes_external_address": "pbx-1.example.org",
        "labredes_admin_networks": ["198.51.100.7", "2001:db8::/32"],
        "labredes_sip_transports": ["tls"],
        "labredes_ssh_port": "2222",
        "system_timezone": "America/Argentina/Buenos_Aires",
    },
}


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    """The result of validate.yml: its exit code, the failures of each host, and whether ssh was called."""
    directory = tmp_path_factory.mktemp("validation")
    called = directory / "ssh-was-called"
    ssh = directory / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {called}\nexit 255\n")
    ssh.chmod(0o755)
    hosts = {name: variables for name, (variables, _message) in FAULTS.items()} | RIGHT
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
                    # From ansible-core 2.21 on the items that failed have an exception instead.
                    items = [one for one in result.get("results", []) if one.get("failed") or "exception" in one]
                    parts = [one.get("msg", "") for one in (result, *items)]
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
    for host in RIGHT:
        assert validation["stats"][host]["failures"] == validation["stats"][host]["changed"] == 0


def test_no_message_is_in_the_words_of_python(validation):
    jargon = ("Traceback", "<class", "NoneType", "unhandled", "Error", "undefined variable", "attribute", "templating")
    assert not [said for said in validation["failed"].values() if any(word in said for word in jargon)]


def test_validation_connects_to_no_host(validation):
    assert not validation["called"]
    assert not any(stats["unreachable"] for stats in validation["stats"].values())
