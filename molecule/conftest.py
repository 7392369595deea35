"""The host of a small scenario, for its tests: `host` is testinfra's, connected over SSH as root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab"))

import host as lab_host  # noqa: E402  the path has to be set first

import inventory  # noqa: E402


@pytest.fixture(scope="session")
def lab_directory() -> Path:
    """The lab directory of the scenario under test, which molecule sets."""
    return Path(os.environ["LAB_DIR"])


@pytest.fixture(scope="session")
def hostname(lab_directory) -> str:
    """The name of the host under test."""
    return inventory.read(lab_directory)[0]


@pytest.fixture(scope="session")
def address(lab_directory) -> str:
    """Its IPv4 address."""
    return inventory.read(lab_directory)[1]


@pytest.fixture(scope="session")
def ssh_port(lab_directory, address) -> int:
    """The port on which its SSH accepts the lab's key."""
    return lab_host.port(address, lab_directory)


@pytest.fixture(scope="session")
def host(lab_directory, address, ssh_port) -> testinfra.host.Host:
    """The host for testinfra."""
    return testinfra.get_host(
        f"ssh://{lab_host.ADMIN}@{address}:{ssh_port}",
        ssh_identity_file=str(lab_directory / "key"),
        sudo=True,
        ssh_extra_args=f"-F none -o UserKnownHostsFile={lab_directory}/known_hosts -o BatchMode=yes -o LogLevel=ERROR",
    )
