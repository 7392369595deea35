"""A host that is named in the user's configuration of ssh alone, behind a jump host."""

from __future__ import annotations

import json

import playbook
import pytest

import inventory

CONFIG = """
Host {name}
    HostName {lab}
    Port 2
    ProxyJump jump
Host jump
    HostName {jump}
Host *
    User admin
    IdentityFile {directory}/key
    IdentitiesOnly yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
"""


@pytest.fixture(name="behind")
def fixture_behind(lab_directory, lab, outside_host, tmp_path):
    """A directory with an inventory with nothing but the name of the lab host, which is behind the outside host."""
    start = "ssh-keygen -A; install -d /run/sshd ~admin/.ssh; cat > ~admin/.ssh/authorized_keys; /usr/sbin/sshd"
    outside_host.run("sh", "-c", start, given=(lab_directory / "key.pub").read_text())
    found = json.loads(inventory.path(lab_directory).read_text().removeprefix("---"))
    ((name, variables),) = found["pbx"]["hosts"].items()
    (tmp_path / "config").write_text(
        CONFIG.format(name=name, lab=lab["host"], jump=outside_host.address, directory=lab_directory.resolve())
    )
    del variables["ansible_host"], variables["ansible_user"], variables["ansible_ssh_private_key_file"]
    variables["ansible_ssh_common_args"] = f"-F {tmp_path}/config"
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory/hosts.json").write_text(json.dumps(found))
    yield tmp_path
    outside_host.run("pkill", "-x", "sshd")


def test_host_behind_a_jump_host_is_found(behind, outside_host, on_lab):
    """On its own port, although its Port in the configuration is out of date."""
    done = playbook.play(behind, playbook="playbooks/preflight.yml")
    assert done.returncode == 0, done.stdout
    assert f"Accepted publickey for admin from {outside_host.address} " in on_lab("journalctl -q -t sshd -n 50")
