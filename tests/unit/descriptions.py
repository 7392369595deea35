"""Descriptions of exchanges with one chosen value, from the lists of bad and of odd ones beside this file."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBmPqYq4oXgQKz3lqv7eB0ZQxS8kq3cVnF1yYcV0aT9P ana"
# A right entry of each list of dictionaries, in which one value is replaced.
ENTRIES: dict[str, dict] = {
    "pbx_phones": {"number": "6001", "name": "Ana"},
    "pbx_queues": {"name": "Q", "number": "8009"},
    "pbx_call_centres": {"number": "11889", "departments": {"1": "6001"}},
    "pbx_applications": {"number": "9000", "application": "hola"},
    "asterisk_ari_users": {"name": "panel"},
    "asterisk_ami_users": {"name": "monitor"},
    "events_users": {"name": "operator"},
    "firewall_extra_rules": {"name": "web", "protocol": "tcp", "ports": [443], "networks": ["0.0.0.0/0"]},
    "sshd_authorized_keys": {"user": "ana", "key": KEY},
    "sshd_match_blocks": {"criteria": "Group sftponly", "settings": {"ForceCommand": "internal-sftp"}},
}


def place(path: str, value: object) -> dict:
    """A description in which the value is at the path, such as pbx_phones[].number, pbx_codes.forward or pbx_realm."""
    variable, key = (re.split(r"(?:\[\])?\.|\[\]", path) + [""])[:2]
    if "[]." in path:
        return {variable: [{**ENTRIES[variable], key: value}]}
    if "[]" in path:
        return {variable: [value]}
    return {variable: {key: value} if key else value}


def listed(name: str) -> dict[str, tuple[str, dict]]:
    """The descriptions of a file: by the name of a host, what a message must name, and the variables."""
    content = yaml.safe_load((HERE / name).read_text())
    cases = [
        (path.split("[")[0].split(".")[0], place(path, value))
        for path, values in content["values"].items()
        for value in values
    ]
    cases += [(entry.get("names", ""), entry["description"]) for entry in content["descriptions"]]
    return {f"h{number:04}": case for number, case in enumerate(cases)}
