"""What the tests of interrupted runs share: another description, what of it is in force, and killed runs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import playbook

ROOT = Path(__file__).resolve().parents[2]
# One value that can be seen in the running service, for each service.
OTHER: dict[str, object] = {
    "asterisk_max_files": 16000,
    "fail2ban_failures": 6,
    "firewall_extra_rules": [{"name": "interrupted", "protocol": "tcp", "ports": ["7"], "networks": ["192.0.2.0/24"]}],
    "labredes_rtp_end": 11997,
    "pbx_queues": [{"name": "Interrumpida", "number": "8009", "agents": ["6001"]}],
    "pbx_user_agent": "Interrupted",
    "postgresql_extra_hba_rules": ["host interrupted interrupted 192.0.2.0/24 scram-sha-256"],
    "postgresql_listen_addresses": ["localhost", "127.0.0.2"],
    "system_journal_max_use": "123M",
}
# A shell line for each that succeeds if the service runs with the other value.
LOOK = {
    "open files": "grep -q 'Max open files *16000 ' /proc/$(pidof asterisk)/limits",
    "fail2ban": "fail2ban-client get labredes-sshd maxretry | grep -qx 6",
    "firewall": "nft list chain inet labredes input | grep -q interrupted",
    "rtp.conf": "asterisk -rx 'rtp show settings' | grep -q 'Port end: *11997'",
    "queues.conf": "asterisk -rx 'queue show' | grep -q ^Interrumpida",
    "extensions.conf": "asterisk -rx 'dialplan show services' | grep -q \"'8009' =>\"",
    "pjsip.conf": "asterisk -rx 'pjsip show settings' | grep -q 'user_agent *: Interrupted'",
    "pg_hba.conf": "grep -q interrupted /etc/postgresql/*/main/pg_hba.conf && "
    'test "$(cd / && sudo -u postgres psql -Atc "SELECT pg_conf_load_time() > '
    "(pg_stat_file(current_setting('hba_file'))).change\")\" = t",
    "postgresql.conf": "ss -Hltn sport = :5432 | grep -q 127.0.0.2",
    "journald.conf": "journalctl -q -b -u systemd-journald -g max | tail -1 | grep -q 'max 123'",
}


def in_force(on_lab: Callable[..., str]) -> dict[str, bool]:
    """For each entry of LOOK, whether the host runs with the other value."""
    script = "\n".join(f"if {line}; then echo '{name}=1'; else echo '{name}='; fi" for name, line in LOOK.items())
    return {name: bool(value) for name, value in re.findall(r"(?m)^(.+)=(1?)$", on_lab(script))}


def killed(directory: Path, step: str, *arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """A run of site.yml that is killed at a step of tests/tools/callback/killed_at.py."""
    done = playbook.play(directory, *arguments, "-e", json.dumps(variables), killed_at=step)
    assert done.returncode == -signal.SIGKILL, f"not killed at {step}: {done.stdout[-2000:]}"
    return done


def changes(directory: Path, *arguments: str, **variables: object) -> int:
    """The number of changes of a complete run of site.yml."""
    done = playbook.play(directory, *arguments, "-e", json.dumps(variables))
    assert done.returncode == 0, done.stdout[-3000:]
    return max(map(int, re.findall(r"changed=(\d+)", done.stdout)))
