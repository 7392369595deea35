"""What role asterisk finds of another Asterisk on a host, and what it keeps of it, in a directory that stands for /."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parents[2] / "roles/asterisk/files"


@pytest.fixture(name="host")
def fixture_host(tmp_path):
    """A function that runs a script in the directory, with programs that stand for those of the host."""

    def run(script: str, **programs: str) -> list[str]:
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name, body in {"systemctl": "exit 1", **programs}.items():
            program = tmp_path / "bin" / name.replace("_", "-")
            program.write_text(f"#!/bin/sh\n{body}\n")
            program.chmod(0o755)
        text = (FILES / script).read_text()
        for path in ("/etc/", "/usr/lib/", "/usr/sbin/", "/var/lib/", "/proc"):
            text = text.replace(path, f"{tmp_path}{path}")
        done = subprocess.run(
            ["sh", "-c", text.replace("cut -d/ -f3", "sed 's,.*/proc/,,; s,/.*,,'")],
            env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.replace(str(tmp_path), "").splitlines()

    return run


def process(root: Path, number: int, name: str, cgroup: str) -> None:
    """A process below /proc."""
    (root / f"proc/{number}").mkdir(parents=True)
    (root / f"proc/{number}/comm").write_text(f"{name}\n")
    (root / f"proc/{number}/cgroup").write_text(f"0::{cgroup}\n")


def test_asterisk_outside_its_service_is_found(host, tmp_path):
    process(tmp_path, 12, "asterisk", "/system.slice/rc-local.service")
    process(tmp_path, 13, "asterisk", "/system.slice/asterisk.service")
    process(tmp_path, 14, "sleep", "/system.slice/cron.service")
    none = {"id": "exit 1", "getent": "exit 2"}
    assert host("other_asterisk.sh", dpkg_query="exit 1", **none) == ["process 12 (asterisk)"]
    # With the package of this collection it is the exchange itself.
    assert host("other_asterisk.sh", dpkg_query="exit 0", **none) == []


@pytest.mark.parametrize(
    ("shell", "password", "keys", "found"),
    [
        ("/bin/bash", "$6$x", False, ["login"]),
        ("/bin/sh", "!", True, ["login"]),
        ("/bin/sh", "!", False, []),
        ("/usr/sbin/nologin", "$6$x", True, []),
    ],
)
def test_user_who_can_log_in_is_found(host, tmp_path, shell, password, keys, found):
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/authorized_keys").write_text("key\n" * keys)
    answer = (
        f"case $1 in passwd) echo asterisk:x:1001:1001::{tmp_path}:{shell} ;; *) echo 'asterisk:{password}:1' ;; esac"
    )
    assert host("other_asterisk.sh", dpkg_query="exit 1", id="exit 1", getent=answer) == found


@pytest.mark.parametrize(("state", "found"), [("installed", 1), ("config-files", 1), ("not-installed", 0), ("", 0)])
def test_package_whose_purge_would_delete_data_is_found(host, state, found):
    """Also one that is removed, and whose configuration is still there."""
    query = f"case $* in *labredes*) exit 1 ;; esac; echo -n '{state}'"
    assert host("other_asterisk.sh", dpkg_query=query, id="exit 1", getent="exit 2") == ["purge"] * found


@pytest.mark.parametrize(
    "path",
    [
        "etc/asterisk",
        "etc/asterisk.before-labredes",
        "etc/odbc.ini",
        "etc/systemd/system/asterisk.service",
        "usr/lib/asterisk",
        "usr/lib/asterisk.before-labredes",
        "var/lib/asterisk",
    ],
)
def test_what_there_is_to_take_over_is_found(host, tmp_path, path):
    """Also what a killed run has renamed already."""
    none = {"dpkg_query": "exit 1", "id": "exit 1", "getent": "exit 2"}
    assert host("other_asterisk.sh", **none) == []
    assert host("other_asterisk.sh", systemctl="exit 0", **none) == ["left"]
    (tmp_path / path).mkdir(parents=True)
    assert host("other_asterisk.sh", **none) == ["left"]


def test_files_of_another_asterisk_are_kept_under_new_names(host, tmp_path):
    for name in ("etc/asterisk", "etc/asterisk.before-labredes", "usr/lib/asterisk"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "etc/odbc.ini").write_text("[accounts]\n")
    for name in ("etc/systemd/system/asterisk.service", "etc/logrotate.d/asterisk", "usr/sbin/asterisk"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "usr/lib/libasteriskssl.so.1").touch()
    (tmp_path / "usr/lib/libasteriskssl.so").symlink_to("libasteriskssl.so.1")
    assert host("take_over.sh", dpkg_query="exit 1") == [
        "/etc/asterisk.before-labredes",
        "/usr/lib/asterisk.before-labredes",
        "/etc/odbc.ini.before-labredes",
        "/etc/systemd/system/asterisk.service.before-labredes",
    ]
    programs = {path.name for path in (tmp_path / "usr/lib/asterisk.before-labredes").iterdir()}
    assert programs == {"file", "asterisk", "libasteriskssl.so", "libasteriskssl.so.1"}
    # logrotate reads every file of its directory.
    assert [path.name for path in (tmp_path / "etc/logrotate.d").iterdir()] == ["asterisk"]
    assert (tmp_path / "etc/asterisk.before-labredes/logrotate.d").read_text() == "etc/logrotate.d/asterisk"
    assert (tmp_path / "etc/asterisk.before-labredes/file").read_text() == "etc/asterisk"
    assert (tmp_path / "etc/asterisk.before-labredes.~1~/file").read_text() == "etc/asterisk.before-labredes"
    assert not (tmp_path / "usr/lib/asterisk").exists() and (tmp_path / "etc/odbc.ini").exists()


def test_modules_of_packages_and_own_files_stay(host, tmp_path):
    (tmp_path / "usr/lib/asterisk").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/odbc.ini").write_text("# Ansible managed\n")
    assert host("take_over.sh", dpkg_query="exit 0") == []
    assert (tmp_path / "usr/lib/asterisk").exists()
