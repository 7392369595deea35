"""The lab's inventory: one host, how to reach it, and where its Asterisk comes from.

One file holds it all, variables of every host included: Molecule empties the group_vars of its own inventory.
"""

from __future__ import annotations

import json
import pathlib

from host import ADMIN
from shell import LabError


def path(room: pathlib.Path) -> pathlib.Path:
    """The inventory file of a lab directory."""
    return room / "inventory" / "hosts.yml"


def write(room: pathlib.Path, name: str, address: str, ours: str, release: dict[str, object]) -> None:
    """Write the inventory; there is no ansible_port, role reach finds it. JSON is YAML.

    ours: this machine's address as the host sees it; a test that guesses on purpose must not shut it out.
    """
    options = f"-o UserKnownHostsFile={room}/known_hosts -o StrictHostKeyChecking=accept-new -o IdentitiesOnly=yes"
    host = {
        "ansible_host": address,
        "ansible_user": ADMIN,
        "ansible_ssh_private_key_file": f"{room}/key",
        "ansible_ssh_common_args": options,
        "labredes_secrets_dir": f"{room}/secrets",
        "labredes_admin_networks": [ours],
        "sshd_allow_users": [ADMIN],
        "labredes_sip_transports": ["udp", "tcp", "tls", "wss"],
        "labredes_wss_networks": ["0.0.0.0/0", "::/0"],
    }
    content = {"all": {"vars": release}, "pbx": {"hosts": {name: host}}}
    path(room).parent.mkdir(parents=True, exist_ok=True)
    path(room).write_text("---\n" + json.dumps(content, indent=2) + "\n")


def read(room: pathlib.Path) -> tuple[str, str, dict[str, object]]:
    """The lab's host as (name, address, release variables)."""
    try:
        content = json.loads(path(room).read_text().removeprefix("---"))
    except FileNotFoundError:
        raise LabError(f"there is no lab host in {room}; `make lab` makes one") from None
    ((name, host),) = content["pbx"]["hosts"].items()
    return name, host["ansible_host"], content["all"]["vars"]
