"""The lab's settings and its inventory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "lab"))
import debian_mirror  # noqa: E402  the path has to be set first
import manual_installation  # noqa: E402
from shell import LabError  # noqa: E402

import inventory  # noqa: E402


@pytest.fixture
def written(tmp_path):
    """A lab directory with an inventory."""
    inventory.write(tmp_path, {"pbx-lab": "192.0.2.7"}, "192.0.2.1", {"asterisk_package_release": "18.26.4"})
    return tmp_path


def test_inventory_is_read_back(written):
    name, address, known = inventory.read(written)
    assert (name, address, known["asterisk_package_release"]) == ("pbx-lab", "192.0.2.7", "18.26.4")
    assert [phone["number"] for phone in known["pbx_phones"]] == ["6001", "6002", "6003", "6004"]


def test_phone_for_browsers_keeps_its_password(written):
    before = inventory.read(written)[2]["pbx_phones"][-1]
    assert before["webrtc"] and len(before["password"]) == 32
    inventory.write(written, {"pbx-lab": "192.0.2.7"}, "192.0.2.1", {})
    assert inventory.read(written)[2]["pbx_phones"][-1] == before


def test_optional_groups_raise_no_warning(written):
    program = Path(sys.executable).with_name("ansible")
    command = [program, "pbx:builders:databases", "-i", written / "inventory", "--list-hosts"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "pbx-lab" in shown.stdout
    assert "Could not match" not in shown.stderr, shown.stderr


@pytest.mark.parametrize(("setting", "option"), [("2g", "--memory=2g"), ("", None)])
def test_memory_setting_limits_the_host(setting, option):
    program = "import host; print(*host.FLAGS)"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "lab"), "LAB_MEMORY": setting}
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)
    flags = [flag for flag in shown.stdout.split() if flag.startswith("--memory")]
    assert flags == ([option] if option else [])


def test_mirror_setting_replaces_that_of_apt(monkeypatch):
    monkeypatch.setattr(debian_mirror, "MIRROR", "http://mirror.example/debian")
    monkeypatch.setattr(debian_mirror, "answers", lambda uri: True)
    lines = debian_mirror.sources("bookworm")
    assert [line.split()[-3:] for line in lines] == [
        ["http://mirror.example/debian", "bookworm", "main"],
        ["http://mirror.example/debian", "bookworm-updates", "main"],
        ["http://mirror.example/debian-security", "bookworm-security", "main"],
    ]


def test_missing_lab_is_one_sentence(tmp_path):
    with pytest.raises(inventory.LabError, match="there is no lab host in .*; `make lab` creates one"):
        inventory.read(tmp_path)


def test_manual_installation_takes_the_newest_package(tmp_path, monkeypatch):
    monkeypatch.setattr(manual_installation, "CACHE", tmp_path)
    (tmp_path / "packages").mkdir()
    for age, name in enumerate(("22.1.0_debian11_amd64_b", "22.1.0_debian11_amd64_a", "22.1.0_debian12_amd64_c")):
        path = tmp_path / f"packages/labredes-asterisk_{name}.deb"
        path.touch()
        os.utime(path, (age, age))
    assert manual_installation.package("22.1.0", "debian11").name.endswith("debian11_amd64_a.deb")
    with pytest.raises(LabError, match="no package of Asterisk 22.2.0 for debian11; build it with `make lab`"):
        manual_installation.package("22.2.0", "debian11")
