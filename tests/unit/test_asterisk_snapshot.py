"""Module asterisk_snapshot on files of its own, and the refusals of packages."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
import rendering
from ansible_collections.labredes.pbx.plugins.modules import asterisk_snapshot

VERSION = "1:22.10.1+pbx.0123456789ab"


def package(path: Path, **fields: str) -> Path:
    """Make a Debian package of one file."""
    tree = path.with_suffix(".tree")
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "data").write_bytes(os.urandom(4096))
    known = {"Package": "labredes-asterisk", "Version": VERSION, "Architecture": "amd64", "Maintainer": "a <a@a>"}
    lines = [f"{name}: {value}\n" for name, value in {**known, **fields, "Description": "a"}.items()]
    (tree / "DEBIAN/control").write_text("".join(lines))
    subprocess.run(["dpkg-deb", "--build", tree, path], capture_output=True, check=True)
    return path


@pytest.fixture
def host(tmp_path) -> Path:
    """The files of an exchange, below a directory."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/pjsip.conf").write_text("old")
    (tmp_path / "odbc.ini").write_text("old")
    (tmp_path / "cdr.conf").write_text("old")
    database = sqlite3.connect(tmp_path / "astdb")
    database.execute("CREATE TABLE astdb(key VARCHAR(256), value VARCHAR(256), PRIMARY KEY(key))")
    database.execute("INSERT INTO astdb VALUES('/6001/REDIRECT', '6002')")
    database.commit()
    database.close()
    package(tmp_path / "old.deb")
    return tmp_path


@pytest.fixture
def run(host, run_module):
    """A function that runs the module and gives its answer."""

    def now(state: str, check: bool = False, **options: object) -> dict:
        arguments = {
            "state": state,
            "directory": str(host / "upgrade"),
            "version": VERSION,
            "package": str(host / "old.deb"),
            "files": [str(host / name) for name in ("etc", "odbc.ini", "missing")],
            "watched": [str(host / "cdr.conf")],
            "astdb": str(host / "astdb"),
            **options,
        }
        return run_module(asterisk_snapshot, check, **arguments)

    return now


def upgraded(host: Path) -> None:
    """The files that another version has."""
    (host / "etc/pjsip.conf").write_text("new")
    (host / "etc/new.conf").write_text("new")
    (host / "odbc.ini").write_text("new")
    (host / "missing").write_text("new")
    with sqlite3.connect(host / "astdb") as database:
        database.execute("DELETE FROM astdb")


def test_snapshot_is_restored_as_it_was(host, run):
    assert run("taken")["changed"]
    upgraded(host)
    assert run("restored")["changed"]
    assert sorted(os.listdir(host / "etc")) == ["pjsip.conf"]
    assert [(host / name).read_text() for name in ("etc/pjsip.conf", "odbc.ini")] == ["old", "old"]
    assert not (host / "missing").exists()
    assert not sqlite3.connect(host / "astdb").execute("SELECT * FROM astdb").fetchall()


def test_database_is_restored_where_it_is_asked_for(host, run):
    run("taken")
    upgraded(host)
    run("restored", with_astdb=True)
    assert sqlite3.connect(host / "astdb").execute("SELECT value FROM astdb").fetchall() == [("6002",)]


def test_interrupted_upgrade_keeps_the_first_snapshot(host, run):
    run("taken")
    upgraded(host)
    again = run("taken", version="1:23+pbx.b")
    assert (again["changed"], again["interrupted"], again["version"]) == (False, True, VERSION)
    run("restored")
    assert (host / "odbc.ini").read_text() == "old"


def test_finished_upgrade_is_followed_by_a_new_snapshot(host, run):
    run("taken")
    upgraded(host)
    assert run("finished")["changed"] and not run("finished")["changed"]
    assert run("taken", version="1:23+pbx.b")["changed"]
    assert run("checked")["version"] == "1:23+pbx.b"
    run("restored")
    assert (host / "odbc.ini").read_text() == "new"


@pytest.mark.parametrize("rest", [[], ["files"], ["files", "odbc.ini"]])
def test_restoring_that_is_interrupted_is_repeated(host, run, rest):
    """As a run leaves it that is killed between the moves of a directory."""
    run("taken")
    upgraded(host)
    os.rename(host / "etc", host / "etc.labredes-old")
    if rest:
        (host / "etc.labredes-part").mkdir()
        (host / "etc.labredes-part/half").touch()
    run("restored")
    assert sorted(os.listdir(host / "etc")) == ["pjsip.conf"]
    assert not [name for name in os.listdir(host) if "labredes-" in name]


def test_snapshot_that_is_not_whole_is_none(host, run):
    (host / "upgrade/previous.part").mkdir(parents=True)
    (host / "upgrade/previous.part/version").write_text("other")
    assert "there is no earlier version to go back to" in run("checked")["msg"]
    assert run("taken")["changed"] and run("checked")["version"] == VERSION


def test_damaged_package_is_no_way_back(host, run):
    content = (host / "old.deb").read_bytes()
    (host / "old.deb").write_bytes(content[: len(content) // 2])
    assert "is missing or damaged" in run("taken")["msg"]
    (host / "old.deb").write_bytes(content)
    run("taken")
    os.truncate(host / "upgrade/previous/package.deb", len(content) // 2)
    assert "previous/package.deb is missing or damaged; set asterisk_package_release" in run("checked")["msg"]


@pytest.mark.parametrize("changed", ["etc/pjsip.conf", "etc/added.conf", "odbc.ini", "cdr.conf", "missing"])
def test_newer_configuration_is_not_lost(host, run, changed):
    run("taken")
    upgraded(host)
    run("finished")
    assert run("checked")["version"] == VERSION
    (host / changed).write_text("newer")
    assert f"the configuration has changed since the upgrade ({host / changed})" in run("checked")["msg"]


def test_interrupted_upgrade_has_no_newer_configuration(host, run):
    run("taken")
    upgraded(host)
    assert run("checked")["interrupted"] is True


def test_database_of_another_form_is_refused(host, run):
    run("taken")
    with sqlite3.connect(host / "astdb") as database:
        database.execute("ALTER TABLE astdb RENAME TO other")
    assert "cannot be read by the earlier version (its table astdb has columns []); copy" in run("checked")["msg"]
    (host / "astdb").write_bytes(b"no database" * 1000)
    assert "cannot be read by the earlier version" in run("checked")["msg"]
    (host / "astdb").unlink()
    assert run("checked")["version"] == VERSION


def test_removed_snapshot_leaves_its_package(host, run):
    run("taken")
    kept = host / "packages/old.deb"
    assert run("removed", package=str(kept))["changed"]
    assert kept.read_bytes() == (host / "old.deb").read_bytes()
    assert os.listdir(host / "upgrade") == []


def test_check_mode_changes_nothing(host, run):
    assert not run("taken", check=True)["changed"] and not (host / "upgrade").exists()


READ = rendering.ROLES / "asterisk/files/read_package.sh"


@pytest.fixture(scope="module")
def refusal():
    """A function that gives the sentence with which a package is refused; empty if it is not."""
    tasks = rendering.load(rendering.ROLES / "asterisk/tasks/stage_package.yml")
    (task,) = [task for task in tasks if task["name"] == "Refuse a package that cannot be installed"]

    def read(path: Path, version: str = VERSION) -> str:
        done = subprocess.run(["sh", READ, path], capture_output=True, text=True, check=False)
        known = {
            **task["vars"],
            "asterisk_deb": str(path),
            "asterisk_deb_version": version,
            "__asterisk_package_read": {"rc": done.returncode, "stdout_lines": done.stdout.splitlines()},
        }
        return rendering.evaluate("{{ __asterisk_package_problem }}", known)

    return read


def test_package_of_this_architecture_is_taken(tmp_path, refusal):
    own = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    assert refusal(package(tmp_path / "a.deb", Architecture=own)) == ""
    assert refusal(package(tmp_path / "b.deb", Architecture="all")) == ""


def test_package_of_another_architecture_is_refused(tmp_path, refusal):
    assert "is made for the architecture s390x, and the host has" in refusal(
        package(tmp_path / "a.deb", Architecture="s390x")
    )


def test_damaged_package_is_refused(tmp_path, refusal):
    path = package(tmp_path / "a.deb")
    os.truncate(path, path.stat().st_size - 500)
    assert refusal(path) == "is damaged; delete it, so that the next run builds it again."


def test_package_of_another_name_or_version_is_refused(tmp_path, refusal):
    assert "is of asterisk, not labredes-asterisk" in refusal(package(tmp_path / "a.deb", Package="asterisk"))
    assert f"has version {VERSION} and not 1:2+pbx.a" in refusal(
        package(tmp_path / "b.deb", Architecture="all"), "1:2+pbx.a"
    )


@pytest.mark.parametrize(
    ("depends", "names"),
    [({}, []), ({"Depends": "libc6 (>= 2.31), libodbc1 | libodbc2, zlib1g"}, ["libc6", "libodbc1", "zlib1g"])],
)
def test_packages_that_a_package_depends_on_are_known(tmp_path, depends, names):
    path = package(tmp_path / "a.deb", **depends)
    read = subprocess.check_output(["sh", READ, path], text=True).splitlines()
    known = rendering.role_variables("asterisk", rendering.FACTS["Debian 11"])
    known["__asterisk_package_read"] = {"stdout_lines": read}
    assert rendering.evaluate("{{ __asterisk_package_depends }}", known) == names
