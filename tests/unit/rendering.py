"""Renders templates and evaluates variables of the roles as Ansible does, without a host."""

from __future__ import annotations

from pathlib import Path

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.labredes.pbx.plugins.lookup.description_problems import trusted

ROOT = Path(__file__).resolve().parents[2]
ROLES = ROOT / "roles"
HOST = "pbx1"

FACTS = {
    "Debian 12": {
        "distribution": "Debian",
        "distribution_version": "12.11",
        "distribution_major_version": "12",
        "distribution_release": "bookworm",
        "os_family": "Debian",
        "architecture": "x86_64",
        "service_mgr": "systemd",
        "python_version": "3.11.2",
        "hostname": HOST,
        "fqdn": f"{HOST}.example.org",
        "nodename": HOST,
        "default_ipv4": {"address": "192.0.2.10"},
        "default_ipv6": {},
        "all_ipv4_addresses": ["192.0.2.10"],
        "all_ipv6_addresses": ["fe80::10"],
        "processor_vcpus": 2,
        "memtotal_mb": 2048,
        "virtualization_role": "guest",
        "virtualization_type": "kvm",
    }
}
FACTS["Debian 11"] = {
    **FACTS["Debian 12"],
    "distribution_version": "11.9",
    "distribution_major_version": "11",
    "distribution_release": "bullseye",
    "python_version": "3.9.2",
}
FACTS["Ubuntu 18.04"] = {
    **FACTS["Debian 12"],
    "distribution": "Ubuntu",
    "distribution_version": "18.04",
    "distribution_major_version": "18",
    "distribution_release": "bionic",
    "python_version": "3.6.9",
    "all_ipv6_addresses": [],
}
FACTS["Ubuntu 20.04"] = {
    **FACTS["Ubuntu 18.04"],
    "distribution_version": "20.04",
    "distribution_major_version": "20",
    "distribution_release": "focal",
    "python_version": "3.8.10",
}

# What playbooks and tasks set before a template is rendered.
SET_BY_TASKS = {
    "asterisk_deb": "/tmp/labredes-asterisk.deb",
    "asterisk_deb_version": "1:22.10.1+pbx.0123456789ab",
    "__sshd_ports": [22, 3524],
    "__backup_own_certificate": False,
    "__postgresql_listed": {
        "stdout_lines": [
            "true",
            '{"version": "13", "name": "main", "port": 5432, "status": "online", "owner": "postgres", "own": false, '
            '"shared": false, "included": true, "server": {"listens": "localhost", "databases": []}}',
        ]
    },
    "firewall_rules": [
        {"name": "ssh", "protocol": "tcp", "ports": [3524, "22"], "networks": ["0.0.0.0/0", "::/0", "198.51.100.0/24"]},
        {
            "name": "rtp",
            "protocol": "udp",
            "ports": ["10000-11999"],
            "networks": ["192.0.2.0/24", "192.0.2.7", "2001:db8::/32"],
        },
        {"name": "ami", "protocol": "tcp", "ports": [5038], "networks": []},
        {"name": "postgresql", "protocol": "tcp", "ports": [], "networks": ["192.0.2.0/24"]},
    ],
}

# As far from the defaults as a description may be.
UNUSUAL = {
    "labredes_language": "en",
    "pbx_phones": [
        {
            "number": str(number),
            "name": f"Teléfono {number} d'Émile",
            "password": "kR7vTz0q.Wm2~xBn5c!*^@",
            **({"agent": "Ana d'Émile", "mailbox": False, "webrtc": True} if number == 200 else {}),
        }
        for number in range(200, 210)
    ],
    "pbx_conferences": ["90", "9001"],
    "pbx_codecs": ["alaw", "g722"],
    "labredes_sip_transports": ["tcp", "tls", "wss"],
    "pbx_queues": [{"name": "Ventas", "number": "8002", "agents": ["200"]}, {"name": "b", "number": "8003"}],
    "pbx_call_centres": [
        {"number": "999", "departments": {"12": "201", 3: 202}},
        {"number": "998", "departments": {"0": "200"}},
    ],
    "pbx_applications": [{"number": "9000", "application": "hola"}],
    "pbx_codes": {"voicemail": "*99"},
    "labredes_sip_binds": ["2001:db8::10", "192.0.2.10"],
    "labredes_external_address": "203.0.113.7",
    "labredes_local_networks": ["192.0.2.0/24", "2001:db8::/32"],
    "labredes_sip_port": 15060,
    "pbx_realm": "pbx.example.org",
    "asterisk_radius": True,
    "asterisk_country": "us",
    "labredes_database_host": "db.example.org",
    "labredes_database_port": 6432,
    "postgresql_allowed_networks": ["192.0.2.0/24", "2001:db8::/32"],
    "postgresql_extra_hba_rules": ["hostssl invoices invoices 198.51.100.0/24 scram-sha-256", "local stock stock peer"],
    "asterisk_group_members": ["ana"],
    "asterisk_ari_users": [],
    "labredes_ami_bind": "0.0.0.0",
    "asterisk_http_tls": True,
    "asterisk_ami_users": [
        {"name": "monitor", "read": ["call", "agent"], "permit": ["198.51.100.0/24"]},
        {"name": "b"},
    ],
    "asterisk_extra_modules": ["app_echo"],
    "asterisk_memory_max": "75%",
    "asterisk_core_dumps": True,
    "sshd_allow_users": ["ana", "admin"],
    "sshd_match_blocks": [{"criteria": "Group sftponly", "settings": {"ForceCommand": "internal-sftp"}}],
    "system_unattended_upgrades": False,
    "system_core_dumps": True,
    "system_idle_seconds": 0,
    "system_kernel_modules_refused": [],
    "firewall_extra_rules": [
        {
            "name": "web",
            "protocol": "tcp",
            "ports": [80, "443", "8000-8010", "8005-8020"],
            "networks": ["2001:db8:1::/48", "::/0"],
        },
        {"name": "dns 2", "protocol": "udp", "ports": ["53"], "networks": ["192.0.2.4/30", "192.0.2.0/30"]},
    ],
    "firewall_log": True,
    "events_users": [
        {"name": "panel", "password": "kR7vTz0q.Wm2~xBn5c", "events": ["Queue*", "Agent*"], "numbers": ["8002"]},
        {"name": "shift-2", "password_hash": f"scrypt$16384$8$5${'A' * 22}==${'A' * 43}=", "channels": ["PJSIP/200"]},
    ],
    "events_metrics_networks": ["192.0.2.9/32", "2001:db8::/32"],
    "labredes_events_port": 9443,
    "labredes_database_sslmode": "verify-full",
    "fail2ban_ignore_networks": ["198.51.100.0/24", "2001:db8::/32"],
    "fail2ban_ban_seconds": 604800,
}


def load(path: Path) -> dict:
    """A YAML file of variables, empty when there is none."""
    return trusted(yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def defaults(role: str) -> dict:
    """A role's defaults, of one file or of a directory of files."""
    place = ROLES / role / "defaults"
    return {name: value for path in sorted(place.rglob("*.yml")) for name, value in load(path).items()}


def role_variables(role: str, facts: dict) -> dict:
    """A role's defaults and variables on a host with these facts."""
    place = ROLES / role / "vars"
    own = place / f"{facts['distribution']}_{facts['distribution_major_version']}.yml"
    main = [place / "main.yml", *sorted((place / "main").glob("*.yml"))]
    files = [*main, own if own.exists() else place / "default.yml"]
    return {**defaults(role), **{name: value for path in files for name, value in load(path).items()}}


def variables(facts: dict, description: dict, secrets: Path, role: str | None = None) -> dict:
    """All variables that a template of a role may use, without the private variables of other roles."""
    found = {}
    for other in sorted(path.name for path in ROLES.iterdir() if path.is_dir()):
        its = role_variables(other, facts)
        found.update({name: value for name, value in its.items() if other == role or not name.startswith("__")})
    return {
        **found,
        **SET_BY_TASKS,
        **trusted(description),
        "inventory_hostname": HOST,
        "groups": {"all": [HOST], "pbx": [HOST]},
        "hostvars": {HOST: {}},
        "ansible_facts": facts,
        "ansible_check_mode": False,
        "labredes_secrets_dir": str(secrets),
        "role_name": role,
        "role_path": str(ROLES / role) if role else None,
    }


def render(template: Path, known: dict) -> str:
    """A rendered template; raises AnsibleUndefinedVariable for a name that is not defined."""
    loader = DataLoader()
    loader.set_basedir(str(ROOT))
    lookup = lookup_loader.get("ansible.builtin.template", loader=loader, templar=Templar(loader, known))
    options = {} if hasattr(Templar, "evaluate_expression") else {"convert_data": False}
    return lookup.run([str(template)], known, **options)[0]


def evaluate(expression: str, known: dict):
    """The value of an expression in braces, of the type that Ansible gives it."""
    loader = DataLoader()
    loader.set_basedir(str(ROOT))
    return Templar(loader, known).template(trusted(expression))
