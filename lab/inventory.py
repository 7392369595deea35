"""The lab's inventory: its hosts, their connection, and the source of their Asterisk.

Everything is in one file: Molecule replaces the group_vars directory of its own inventory.
"""

from __future__ import annotations

import json
import pathlib
import secrets
from typing import Any

import yaml
from host import ADMIN
from shell import LabError

DEFAULTS = pathlib.Path(__file__).resolve().parent.parent / "roles/pbx/defaults/main.yml"
BROWSER_PHONE = "6004"
# What AMI's user of the lab reads: not the classes whose events are disabled on an exchange without AMI users.
AMI_EVENTS = ["system", "call", "agent", "user", "config", "dtmf", "cdr", "log", "verbose"]


def path(directory: pathlib.Path) -> pathlib.Path:
    """The inventory file of a lab directory."""
    return directory / "inventory" / "hosts.yml"


def write(directory: pathlib.Path, addresses: dict[str, str], controller: str, release: dict[str, Any]) -> None:
    """Write the inventory, in JSON, which is YAML. It has no ansible_port: role preflight finds the port.

    addresses: that of each host, by its name. controller: this machine's address as the hosts see it; never banned,
    since tests attack the hosts from here.
    """
    options = f"-o UserKnownHostsFile={directory}/known_hosts -o StrictHostKeyChecking=accept-new -o IdentitiesOnly=yes"
    common = {
        "ansible_user": ADMIN,
        "ansible_ssh_private_key_file": f"{directory}/key",
        "ansible_ssh_common_args": options,
        "labredes_secrets_dir": f"{directory}/secrets",
        "labredes_admin_networks": [controller],
        "sshd_allow_users": [ADMIN],
        "labredes_sip_transports": ["udp", "tcp", "tls", "wss"],
        "labredes_wss_networks": ["0.0.0.0/0", "::/0"],
        "asterisk_ami_users": [{"name": "lab", "read": AMI_EVENTS, "write": ["all"]}],
        # Of the router in front of the host that tests create; phones on the lab's own network never see it.
        "labredes_external_address": "198.51.100.1",
    }
    data = exchange(_password(directory))
    # The optional groups are empty: a host builds the package and each keeps its records itself.
    hosts = {name: {"ansible_host": address, **common} for name, address in addresses.items()}
    content = {"all": {"vars": {**release, **data}}, "pbx": {"hosts": hosts}, "builders": {}, "databases": {}}
    path(directory).parent.mkdir(parents=True, exist_ok=True)
    path(directory).write_text("---\n" + json.dumps(content, indent=2) + "\n")


def exchange(password: str) -> dict[str, Any]:
    """The default exchange, and a phone for browsers that is in neither its queue nor its call centre.

    Its password is not a generated secret, which a test that takes the phone out would archive.
    """
    phones = yaml.safe_load(DEFAULTS.read_text())["pbx_phones"]
    departments = {str(key): phone["number"] for key, phone in enumerate(phones, 1)}
    browser = {"number": BROWSER_PHONE, "name": "Ana Ruiz", "webrtc": True, "password": password}
    return {"pbx_phones": [*phones, browser], "pbx_call_centres": [{"number": "11888", "departments": departments}]}


def read(directory: pathlib.Path) -> tuple[str, str, dict[str, Any]]:
    """The lab's first host as (name, address, variables of its release and its exchange)."""
    content = _content(directory)
    name, host = next(iter(content["pbx"]["hosts"].items()))
    return name, host["ansible_host"], content["all"]["vars"]


def names(directory: pathlib.Path) -> list[str]:
    """The names of the lab's hosts."""
    return list(_content(directory)["pbx"]["hosts"])


def _content(directory: pathlib.Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path(directory).read_text().removeprefix("---"))
    except FileNotFoundError:
        raise LabError(f"there is no lab host in {directory}; `make lab` creates one") from None
    return content


def _password(directory: pathlib.Path) -> str:
    """The password of the phone for browsers, which a host keeps."""
    try:
        return read(directory)[2]["pbx_phones"][-1]["password"]
    except (LabError, KeyError, ValueError):
        return secrets.token_hex(16)
