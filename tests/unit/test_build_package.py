"""What runs on the builder: check_menuselect.py names what was not built, progress.sh reports how far a build is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest
import rendering

FILES = rendering.ROLES / "asterisk_package/files"
MENUSELECT_TREE = """<?xml version="1.0"?>
<menu name="Asterisk">
<category name="MENUSELECT_ADDONS" positive_output="yes">
  <member name="res_config_mysql"><depend>mysqlclient</depend></member>
  <member name="format_mp3"></member>
</category>
<category name="MENUSELECT_CDR">
  <member name="cdr_pgsql"><depend>pgsql</depend><depend>ssl</depend></member>
  <member name="cdr_csv"></member>
</category>
<category name="MENUSELECT_CFLAGS" positive_output="yes"><member name="BUILD_NATIVE"></member></category>
</menu>
"""
# A category with positive output lists what is on, any other what is off.
WHOLE = "MENUSELECT_ADDONS=format_mp3 res_config_mysql \nMENUSELECT_CDR=cdr_csv \nMENUSELECT_CFLAGS=\n"


@pytest.fixture(name="check", scope="module")
def fixture_check():
    """debian/check_menuselect.py as a module."""
    spec = importlib.util.spec_from_file_location("check_menuselect", FILES / "debian/check_menuselect.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="choice")
def fixture_choice(check, tmp_path, capsys):
    """A function from menuselect's choices and the options asked for to the exit code and the printed lines."""
    (tmp_path / "menuselect-tree").write_text(MENUSELECT_TREE)

    def run(makeopts, enable=(), disable=()):
        (tmp_path / "menuselect.makeopts").write_text(makeopts)
        code = check.main(["choice", str(tmp_path), "--enable", *enable, "--disable", *disable])
        return code, capsys.readouterr().out.splitlines()

    return run


def test_choice_as_asked_for_passes(choice):
    assert choice(WHOLE, ["res_config_mysql", "format_mp3", "cdr_pgsql"], ["BUILD_NATIVE", "cdr_csv"]) == (0, [])


def test_dropped_option_is_named_with_its_needs(choice):
    assert choice("MENUSELECT_ADDONS=format_mp3\nMENUSELECT_CDR=cdr_pgsql\n", ["res_config_mysql", "cdr_pgsql"]) == (
        1,
        [
            "E: res_config_mysql cannot be built: it needs mysqlclient, and ./configure did not find all of it.",
            "E: cdr_pgsql cannot be built: it needs pgsql, ssl, and ./configure did not find all of it.",
        ],
    )


def test_unknown_option_is_named(choice):
    assert choice(WHOLE, ["cdr_mysql"]) == (1, ["E: this release has no option cdr_mysql."])


def test_disabled_option_that_is_chosen_is_named(choice):
    assert choice("MENUSELECT_CFLAGS=BUILD_NATIVE\n", disable=["BUILD_NATIVE"]) == (
        1,
        ["E: BUILD_NATIVE was to be left out and is still chosen."],
    )


def test_module_that_was_not_built_is_named(check, tmp_path, capsys):
    words = ["modules", str(tmp_path), "--enable", "format_mp3", "pbx_lua", "BUILD_NATIVE"]
    (tmp_path / "pbx_lua.so").touch()
    assert check.main(words) == 1
    assert capsys.readouterr().out == "E: format_mp3 was chosen and not built.\n"
    (tmp_path / "format_mp3.so").touch()
    assert check.main(words) == 0


@pytest.fixture(name="host")
def fixture_host(tmp_path):
    """A directory of a build on a host whose systemctl and dpkg-buildpackage are this test's own."""
    for name in ("build.sh", "progress.sh"):
        (tmp_path / name).write_bytes((FILES / name).read_bytes())
    (tmp_path / "bin").mkdir()
    program(tmp_path, "systemctl", f"[ -e {tmp_path}/active ]")

    def run(script: str, *words: str) -> tuple[int, str]:
        """A script's exit code and output."""
        environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", tmp_path / script, *words], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        return done.returncode, done.stdout

    return run


def program(place: Path, name: str, script: str) -> None:
    """Write a program into the PATH of the host."""
    (place / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (place / "bin" / name).chmod(0o755)


def progress(host, place: Path, seconds: int = 0) -> tuple[int, str]:
    """What progress.sh reports."""
    return host("progress.sh", "unit", str(place / "our.deb"), str(seconds))


def test_progress_of_a_running_compilation_counts_files(host, tmp_path):
    (tmp_path / "active").touch()
    (tmp_path / "build.log").write_text(
        "== step 2 of 6: configure\n== step 4 of 6: compile, of about 9 files\n"
        "   [CC] a.c -> a.o\n   [CXX] b.cc -> b.o\n"
    )
    assert progress(host, tmp_path) == (3, "step 4 of 6: compile, of about 9 files, 2 done\n")


def test_progress_waits_for_the_next_step(host, tmp_path):
    (tmp_path / "active").touch()
    (tmp_path / "build.log").write_text("== step 1 of 6: unpack\n")
    # The second question enters the next step.
    program(tmp_path, "systemctl", f'echo "== step 2 of 6: configure" >> {tmp_path}/build.log')
    assert progress(host, tmp_path, seconds=20) == (3, "step 2 of 6: configure\n")


def test_finished_build_is_reported(host, tmp_path):
    (tmp_path / "our.deb").touch()
    assert progress(host, tmp_path) == (0, "")


@pytest.mark.parametrize(
    "first",
    [
        "E: cdr_pgsql cannot be built: it needs pgsql, and ./configure did not find all of it.",
        "app_dial.c:1:1: error: expected ';'",
        "configure: error: *** libjansson not found",
        "tar: x: Cannot write: No space left on device",
        "make[1]: *** [Makefile:399: all] Killed",
    ],
)
def test_first_error_of_a_failed_build_is_reported(host, tmp_path, first):
    (tmp_path / "build.log").write_text(
        f"== step 4 of 6: compile\nchecking for strerror... no\n   [CC] error.c -> error.o\n{first}\n"
        "make: *** [debian/rules:50: build-arch] Error 2\ndpkg-buildpackage: error: debian/rules build returned 2\n"
    )
    assert progress(host, tmp_path) == (1, f"{first}\n")


def test_interrupted_build_is_reported(host, tmp_path):
    (tmp_path / "build.log").write_text("== step 4 of 6: compile\n   [CC] a.c -> a.o\n")
    assert progress(host, tmp_path) == (1, "it was ended from outside in step 4 of 6: compile\n")


@pytest.fixture(name="sources")
def fixture_sources(tmp_path):
    """A tree that has packaging of its own, in the downloads of a build, and our packaging."""
    (tmp_path / "asterisk-1/debian").mkdir(parents=True)
    (tmp_path / "asterisk-1/debian/theirs").touch()
    (tmp_path / "asterisk-1/configure").touch()
    (tmp_path / "downloads").mkdir()
    subprocess.run(["tar", "-czf", tmp_path / "downloads/tree.tar.gz", "-C", tmp_path, "asterisk-1"], check=True)
    (tmp_path / "debian").mkdir()
    (tmp_path / "debian/rules").touch()


@pytest.mark.usefixtures("sources")
def test_build_starts_from_a_fresh_tree(host, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/half.o").touch()
    (tmp_path / "a_1+pbx.0_amd64.deb").write_text("half")
    program(tmp_path, "dpkg-buildpackage", "find . | sort; echo whole > ../a_1+pbx.1_amd64.deb")
    assert host("build.sh", "tree.tar.gz", "our.deb", "1:1+pbx.1")[0] == 0
    log = (tmp_path / "build.log").read_text()
    assert log.splitlines() == [
        "== step 1 of 6: unpack",
        ".",
        "./configure",
        "./debian",
        "./debian/changelog",
        "./debian/rules",
    ]
    assert "labredes-asterisk (1:1+pbx.1) unstable" in (tmp_path / "tree/debian/changelog").read_text()
    assert (tmp_path / "our.deb").read_text() == "whole\n"


@pytest.mark.usefixtures("sources")
def test_failed_build_leaves_no_package(host, tmp_path):
    program(tmp_path, "dpkg-buildpackage", "echo half > ../a_1+pbx.1_amd64.deb; exit 2")
    assert host("build.sh", "tree.tar.gz", "our.deb", "1:1+pbx.1")[0] != 0
    assert not (tmp_path / "our.deb").exists()


def test_package_cut_short_is_removed_before_a_build(tmp_path):
    """As a power failure on the builder leaves it; else it would pass for the result of the build."""
    (tmp_path / "a/DEBIAN").mkdir(parents=True)
    (tmp_path / "a/DEBIAN/control").write_text("Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\n")
    (tmp_path / "a/file").write_bytes(os.urandom(100000))
    subprocess.run(["dpkg-deb", "--build", "a"], cwd=tmp_path, check=True, capture_output=True)
    package = tmp_path / "a.deb"
    (block,) = [item["block"] for item in rendering.load(rendering.ROLES / "asterisk_package/tasks/start.yml")[2:]]
    (task,) = [task for task in block if task["name"] == "Remove a package that is not whole"]
    for size, kept in ((package.stat().st_size, True), (50000, False), (0, False), (None, False)):
        if size is not None:
            package.touch()
            os.truncate(package, size)
        subprocess.run(
            ["sh", "-c", task["ansible.builtin.shell"]["cmd"]],
            env={**os.environ, "package": str(package)},
            check=True,
            capture_output=True,
        )
        assert package.exists() is kept
