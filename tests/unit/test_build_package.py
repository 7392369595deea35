"""What runs on the builder: it names what was not built, and never trusts a step that was cut short."""

from __future__ import annotations

import importlib.util
import io
import json
import tarfile

import pytest
import rendering

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


@pytest.fixture(name="recipe", scope="module")
def fixture_recipe():
    """files/build_package.py as a module."""
    place = rendering.ROLES / "asterisk_package/files/build_package.py"
    spec = importlib.util.spec_from_file_location("build_package", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="select")
def fixture_select(recipe, tmp_path):
    """A function from menuselect's choices to what is wrong with them."""
    (tmp_path / "menuselect-tree").write_text(MENUSELECT_TREE)

    def errors(makeopts, enable=(), disable=()):
        (tmp_path / "menuselect.makeopts").write_text(makeopts)
        return recipe.selection_errors(str(tmp_path), {"release": "18.2.0", "enable": enable, "disable": disable})

    return errors


# A category with positive output lists what is on, any other what is off.
WHOLE = "MENUSELECT_ADDONS=format_mp3 res_config_mysql \nMENUSELECT_CDR=cdr_csv \nMENUSELECT_CFLAGS=\n"


def test_a_selection_as_asked_is_right(select):
    assert select(WHOLE, ["res_config_mysql", "format_mp3", "cdr_pgsql"], ["BUILD_NATIVE", "cdr_csv"]) == []


def test_an_option_that_was_dropped_is_named_with_its_needs(select):
    assert select("MENUSELECT_ADDONS=format_mp3\nMENUSELECT_CDR=cdr_pgsql\n", ["res_config_mysql", "cdr_pgsql"]) == [
        "res_config_mysql was asked for and cannot be built: it needs mysqlclient, "
        "and ./configure did not find all of it.",
        "cdr_pgsql was asked for and cannot be built: it needs pgsql, ssl, and ./configure did not find all of it.",
    ]


def test_an_option_the_tree_does_not_have_is_named(select):
    assert select(WHOLE, ["cdr_mysql"]) == ["Asterisk 18.2.0 has no option cdr_mysql."]


def test_an_option_that_was_to_be_left_out_is_named(select):
    assert select("MENUSELECT_CFLAGS=BUILD_NATIVE\n", disable=["BUILD_NATIVE"]) == [
        "BUILD_NATIVE was to be left out and is still chosen."
    ]


def test_what_was_not_built_is_named(recipe, tmp_path):
    modules = tmp_path / recipe.MODULES
    modules.mkdir(parents=True)
    sounds = tmp_path / recipe.DATA / "sounds/es"
    sounds.mkdir(parents=True)
    spec = {"enable": ["format_mp3", "pbx_lua", "BUILD_NATIVE"], "sounds": {"es.tar.gz": "sounds/es"}}
    (modules / "pbx_lua.so").touch()
    assert recipe.missing_from_stage(str(tmp_path), spec) == ["format_mp3", "es.tar.gz"]
    (modules / "format_mp3.so").touch()
    (sounds / "beep.wav").touch()
    assert recipe.missing_from_stage(str(tmp_path), spec) == []


@pytest.fixture(name="build")
def fixture_build(recipe, tmp_path, monkeypatch):
    """A build whose steps only leave their names; `fail` maps a step to what it raises."""
    spec = {"work": str(tmp_path), "release": "18.2.0", "environment": {}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))

    class Run:
        """Runs the recipe and tells what it did."""

        done = []
        fail = {}

        def __call__(self):
            self.done.clear()
            return recipe.main(str(tmp_path / "spec.json"))

        @property
        def progress(self):
            """What progress.json says."""
            return json.loads((tmp_path / "progress.json").read_text())

    run = Run()

    def step(name):
        def act(_build):
            run.done.append(name)
            if name in run.fail:
                raise run.fail[name]

        return name, act

    monkeypatch.setattr(recipe, "STEPS", tuple(step(name) for name, _act in recipe.STEPS))
    run.names = [name for name, _act in recipe.STEPS]
    return run


def test_a_whole_build_is_not_repeated(build):
    assert build() == 0 and build.done == build.names
    assert build.progress["number"] == build.progress["of"] == len(build.names)
    assert build() == 0 and build.done == []


def test_a_failure_is_one_sentence_and_exit_code_1(build, recipe):
    build.fail = {"compile": recipe.BuildError("make failed: x.c:1: error: y")}
    assert build() == 1
    assert build.progress["error"] == "Asterisk 18.2.0, step compile: make failed: x.c:1: error: y"
    assert build.done[-1] == "compile"


def test_a_full_disk_is_told(build):
    build.fail = {"unpack": OSError(28, "No space left on device")}
    assert build() == 1
    assert "No space left on device" in build.progress["error"]


def test_a_failed_compile_starts_from_a_fresh_tree(build, recipe):
    build.fail = {"compile": recipe.BuildError("x")}
    build()
    build.fail = {}
    assert build() == 0 and build.done == build.names
    assert build.progress["error"] == ""


@pytest.mark.parametrize("step", ["unpack", "configure", "choose the options", "compile"])
def test_a_step_killed_while_the_tree_is_written_starts_from_a_fresh_tree(build, step):
    build.fail = {step: KeyboardInterrupt()}  # as a kill: nothing is caught, nothing is tidied
    with pytest.raises(KeyboardInterrupt):
        build()
    build.fail = {}
    assert build() == 0 and build.done == build.names


@pytest.mark.parametrize("step", ["install and check", "package"])
def test_a_later_step_killed_is_taken_up_there(build, step):
    build.fail = {step: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        build()
    build.fail = {}
    assert build() == 0 and build.done == build.names[build.names.index(step) :]


def test_the_tree_is_unpacked_and_given_what_was_verified(recipe, tmp_path):
    sources = tmp_path / "sources"
    (sources / "mp3").mkdir(parents=True)
    (sources / "mp3/interface.c").write_text('#include "asterisk.h"\nint x;\n')
    (sources / "pjproject-9.tar.bz2").write_bytes(b"pjproject")
    with tarfile.open(sources / "tree.tar.gz", "w:gz") as archive:
        for name in (
            "asterisk-1/configure",
            "asterisk-1/third-party/pjproject/Makefile",
            "asterisk-1/addons/mp3/x.c",
            "asterisk-1/../outside",
            "asterisk-1//etc/outside",
        ):
            content = b"export CFLAGS += $(CF) -g3\n" if name.endswith("Makefile") else b""
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    build = recipe.Build(
        {
            "work": str(tmp_path),
            "tree": "tree.tar.gz",
            "pjproject": "pjproject-9.tar.bz2",
            "mp3": True,
            "environment": {},
            "debug": "-g1",
        }
    )
    recipe.unpack(build)
    tree = tmp_path / "tree"
    assert (tree / "configure").exists() and not list(tmp_path.rglob("outside"))
    assert (tree / "third-party/pjproject/pjproject-9.tar.bz2.md5").read_text().split() == [
        "f120fba3b1d023e44032e431f1cbe410",
        "pjproject-9.tar.bz2",
    ]
    assert (tree / "third-party/pjproject/Makefile").read_text() == "export CFLAGS += $(CF) -g1\n"
    assert [path.name for path in (tree / "addons/mp3").iterdir()] == ["interface.c"]
    expected = '#define ASTMM_LIBC ASTMM_REDIRECT\n#include "asterisk.h"\nint x;\n'
    assert (tree / "addons/mp3/interface.c").read_text() == expected
    recipe.give_mp3(build)
    assert (tree / "addons/mp3/interface.c").read_text() == expected
