"""The installation of packages, without a host: how it waits for apt's lock, and what it says."""

from __future__ import annotations

import os
import re
import subprocess
from types import SimpleNamespace

import pytest
import rendering
from ansible_collections.labredes.pbx.plugins.action import apt

FULL_DISK = {
    "msg": "dpkg -i /a.deb failed",
    "stderr": "dpkg: error processing archive /a.deb (--install):\n cannot copy extracted data for './usr/a' to "
    "'/usr/a.dpkg-new': failed to write (No space left on device)\nErrors were encountered while processing:\n",
}
DPKG = (
    "'/usr/bin/apt-get -y install 'x'' failed: E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by "
    "process 9 (apt-get)\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another "
    "process using it?\n"
)
BIONIC = (
    "'/usr/bin/apt-get -y install 'x'' failed: E: Could not get lock /var/lib/dpkg/lock-frontend - open (11: "
    "Resource temporarily unavailable)\n"
)
LISTS = "Failed to lock apt for exclusive operation: Failed to lock directory /var/lib/apt/lists/"
SPANISH = "'/usr/bin/apt-get' failed: E: No se pudo bloquear /var/lib/dpkg/lock-frontend - open (11)"
FILE = {
    "msg": "dpkg --force-confdef -i /a.deb failed",
    "stderr": "dpkg: error: dpkg frontend lock was locked by another process with pid 9\nNote: removing the lock file "
    "is always wrong, can damage the locked area\nand the entire system.\n",
}
INTERRUPTED = (
    "'/usr/bin/apt-get install 'x'' failed: E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to "
    "correct the problem. \n"
)
BROKEN = "'/usr/bin/apt-get install 'liblockfile1'' failed: E: Failed to fetch http://a/b.deb  404  Not Found\n"


@pytest.fixture(name="install")
def fixture_install(monkeypatch):
    """A function from apt's failures, None for a success, to the result, the displayed lines and the calls."""
    monkeypatch.setattr(apt.ActionBase, "run", lambda *_words: {})

    def run(answers, facts=rendering.FACTS["Debian 12"], check_mode=False, background=(1,), **arguments):
        now, lines, calls, rest, codes = [0], [], [], iter(answers), iter(background)
        monkeypatch.setattr(apt, "answer_of", lambda _action, _script: {"rc": next(codes)})
        monkeypatch.setattr(
            apt, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda more: now.__setitem__(0, now[0] + more))
        )
        monkeypatch.setattr(apt, "display", SimpleNamespace(display=lines.append))
        action = apt.ActionModule.__new__(apt.ActionModule)
        action._task = SimpleNamespace(args=arguments or {"name": ["x"]}, check_mode=check_mode)

        def execute(module, module_args, task_vars):
            calls.append(dict(module_args))
            if module == "ansible.builtin.command":
                return {"rc": 0}
            assert module == "ansible.builtin.apt"
            reason = next(rest)
            if isinstance(reason, dict):
                return {"failed": True, **reason}
            return {"changed": True} if reason is None else {"failed": True, "msg": reason}

        action._execute_module = execute
        known = {"inventory_hostname": "pbx1", "ansible_facts": facts, "preflight_packages": ["acl", "openssl"]}
        return action.run(task_vars=known), lines, calls

    return run


def test_installation_in_the_background_is_awaited_and_displayed(install):
    result, lines, calls = install([], background=[2, 2, 0])
    assert result == {"changed": False} and not calls
    assert lines == ["    pbx1: waiting for the packages that are being installed"] * 2


def test_what_the_background_has_not_installed_is_installed(install):
    result, lines, calls = install([None], background=[2, 1])
    assert result == {"changed": True} and len(calls) == len(lines) == 1


def with_programs(directory, programs, script, *words):
    """The ended SCRIPT of a shell with the arguments WORDS, which finds the PROGRAMS, names with their scripts."""
    for name, text in programs.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return subprocess.run(
        ["sh", "-c", script, *words],
        env={"PATH": f"{directory}:{os.defpath}"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("names", "installed", "states", "code"),
    [
        (["acl"], "acl\nx", "activating", apt.INSTALLED),
        (["acl", "x"], "acl", "activating", apt.AT_WORK),
        (["acl", "x"], "acl", "inactive", 1),
        (["acl", "x.y"], "acl\nx-y", "inactive", 1),
        ([], "acl", "activating", apt.AT_WORK),
        ([], "acl", "inactive", 1),
        (["acl"], "", "", 1),
    ],
)
def test_host_says_whether_the_background_is_at_work(names, installed, states, code, tmp_path):
    programs = {"dpkg-query": f"echo '{installed}' | sed 's/^/installed /'", "systemctl": f"echo {states}", "sleep": ""}
    assert with_programs(tmp_path, programs, apt.AWAIT, "sh", *names).returncode == code


@pytest.mark.parametrize(
    ("state", "downloaded", "waits"),
    [("activating", False, True), ("activating", True, False), ("inactive", False, False)],
)
def test_firewall_waits_for_the_download(state, downloaded, waits, tmp_path):
    """It would drop what a connection that is older than the firewall receives."""
    [play] = rendering.load(rendering.ROOT / "playbooks/harden.yml")
    before, wait, firewall = [task["name"] for task in play["tasks"]][-4:-1]
    assert (before, firewall) == ("Set up sshd", "Set up the firewall")
    [script] = [task["labredes.pbx.look"]["script"] for task in play["tasks"] if task["name"] == wait]
    file = tmp_path / "downloaded"
    if downloaded:
        file.touch()
    programs = {"systemctl": f"echo {state}", "sleep": f"echo waits; touch {file}"}
    asked = with_programs(tmp_path, programs, script.replace("/run/labredes-packages/downloaded", str(file)))
    assert asked.stdout == ("waits\n" if waits else "")


@pytest.mark.parametrize("reason", [DPKG, BIONIC, LISTS, SPANISH, FILE])
def test_installation_waits_for_the_lock_and_says_so(install, reason):
    result, lines, calls = install([reason] * 7 + [None])
    assert result == {"changed": True} and len(calls) == 8
    holder = "process 9 (apt-get)" if reason == DPKG else "another program"
    assert lines == [f"    pbx1: waiting for {holder}, which holds apt's lock ({waited} s)" for waited in (0, 30, 60)]


def test_lock_that_is_never_released_ends_the_wait(install):
    result, _lines, calls = install([DPKG] * 40)
    assert result["failed"] and len(calls) == 31
    assert result["msg"] == (
        "pbx1: process 9 (apt-get) has held apt's lock for 300 s; wait until it has ended, or stop it, then run again."
    )


def test_failed_download_is_tried_again_with_fresh_lists(install):
    result, lines, calls = install([BROKEN, DPKG, BROKEN, None])
    assert result["changed"] and len(lines) == 1
    assert [call["cache_valid_time"] for call in calls] == [3600, 0, 0, 0]


def test_interrupted_installation_is_completed_once(install):
    result, lines, calls = install([INTERRUPTED, None])
    assert result == {"changed": True}
    assert lines == ["    pbx1: completing an installation that was interrupted (dpkg --configure -a)"]
    assert ["name" in call for call in calls] == [True, False, True]
    assert calls[1]["argv"][-2:] == ["--force-confdef", "--force-confold"]


@pytest.mark.parametrize(("check_mode", "called", "displayed"), [(False, 3, 1), (True, 1, 0)])
def test_interrupted_installation_that_stays_so_is_one_sentence(install, check_mode, called, displayed):
    result, lines, calls = install([INTERRUPTED] * 9, check_mode=check_mode)
    assert result["failed"] and len(calls) == called and len(lines) == displayed
    assert result["msg"] == (
        "pbx1: an installation of packages was interrupted; complete it on the host with `dpkg --configure -a`, then "
        "run again."
    )


def test_fourth_failure_is_one_sentence(install):
    result, lines, calls = install([BROKEN] * 9)
    assert result["failed"] and len(calls) == 4 and not lines
    assert result["msg"] == (
        "pbx1: apt failed (Failed to fetch http://a/b.deb  404  Not Found); "
        "check the host's package sources and its network, then run again."
    )


def test_full_disk_is_said_at_once(install):
    result, _lines, calls = install([FULL_DISK], deb="/a.deb")
    assert result["failed"] and len(calls) == 1
    assert result["msg"] == (
        "pbx1: apt failed (cannot copy extracted data for './usr/a' to '/usr/a.dpkg-new': failed to write (No space "
        "left on device)); free some disk space on the host or enlarge its file system, then run again."
    )


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ({"name": ["acl", "openssl"]}, 0),
        ({"name": "acl, openssl"}, 0),
        ({"name": ["acl"]}, 0),
        ({"name": ["acl", "openssl", "x"]}, 1),
        ({"name": "openssl-x"}, 1),
        ({"upgrade": "dist"}, 1),
        ({"deb": "/var/cache/a.deb"}, 1),
    ],
)
def test_host_is_asked_only_for_missing_packages(install, arguments, asked):
    result, _lines, calls = install([None], **arguments)
    assert result["changed"] is bool(asked)
    assert calls == [{"update_cache": True, "cache_valid_time": 3600, **arguments}] * asked


def test_nothing_is_installed_without_facts(install):
    """A run that begins at an upgrade would take a finished host for a new one, and upgrade it."""
    result, _lines, calls = install([None], facts={}, upgrade="dist")
    assert result["failed"] and "no facts of the host; run without --start-at-task" in result["msg"] and not calls


def test_every_installation_waits_for_the_lock():
    """No task installs packages in another way; only what a later task does again where it fails works at once."""
    paths = [*rendering.ROLES.glob("*/tasks/**/*.yml"), *(rendering.ROOT / "playbooks").rglob("*.yml")]
    text = {path: path.read_text() for path in paths}
    assert sum("labredes.pbx.apt:" in one for one in text.values()) > 8
    others = re.compile(r"builtin\.(apt|package):|apt-get install|'apt-get', 'install'")
    found = sorted(str(path.relative_to(rendering.ROOT)) for path, one in text.items() if others.search(one))
    assert found == ["playbooks/tasks/background_packages.yml", "playbooks/tasks/download_packages.yml"]


def test_every_package_of_a_new_host_is_downloaded_before_it_is_installed():
    lists = set(rendering.load(rendering.ROOT / "playbooks/vars/packages.yml"))
    named = re.compile(r"__packages_(?:harden|database|asterisk|last)\b")
    for files in (["tasks/download_packages.yml"], ["packages.yml", "last_packages.yml"]):
        text = "".join((rendering.ROOT / "playbooks" / file).read_text() for file in files)
        assert set(named.findall(text)) == lists, files


def test_check_mode_without_python_apt_says_what_is_missing(install):
    """As ansible.builtin.apt of ansible-core 2.16 to 2.21 puts it; another try would not help."""
    missing = "python3-apt must be installed to use check mode. If run normally this module can auto-install it."
    result, _lines, calls = install([missing])
    assert result["failed"] and len(calls) == 1
    assert result["msg"] == (
        "pbx1: check mode needs the package python3-apt on the host; run without --check, which installs it, or "
        "install it with `apt-get install python3-apt`."
    )
