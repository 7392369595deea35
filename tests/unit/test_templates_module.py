"""Module templates on this machine: what it writes, what it leaves alone, what it shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.module_utils import basic
from ansible.module_utils.common.text.converters import to_bytes
from ansible_collections.labredes.pbx.plugins.modules import templates

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def write(tmp_path, monkeypatch, capsys):
    """A function that runs the module on files below tmp_path/etc and gives its answer."""
    (tmp_path / "etc").mkdir()

    def run(*files: dict, check: bool = False) -> dict:
        arguments = {
            "source": "etc",
            "directory": str(tmp_path / "etc"),
            "mode": "0640",
            "files": list(files),
            "_ansible_check_mode": check,
            "_ansible_remote_tmp": str(tmp_path),
            "_ansible_no_log": True,
        }
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", to_bytes(json.dumps({"ANSIBLE_MODULE_ARGS": arguments})))
        umask = os.umask(0o022)
        try:
            with pytest.raises(SystemExit):
                templates.main()
        finally:
            os.umask(umask)
        return json.loads(capsys.readouterr().out)

    return run


def test_files_are_written_once_and_told_as_they_were_given(write, tmp_path):
    one, two = {"name": "one", "reload": "res_one"}, {"name": "two"}
    assert write({**one, "content": "1\n"}, {**two, "content": "2\n"})["files"] == [one, two]
    again = write({**one, "content": "1\n"}, {**two, "content": "zwei: ñ\n"})
    assert (again["changed"], again["files"]) == (True, [two])
    assert (tmp_path / "etc/two").read_text(encoding="utf-8") == "zwei: ñ\n"
    assert (tmp_path / "etc/two").stat().st_mode & 0o777 == 0o640
    last = write({**one, "content": "1\n"}, {**two, "content": "zwei: ñ\n"})
    assert (last["changed"], last["files"], last["diff"]) == (False, [], [])


def test_nothing_is_replaced_before_everything_is_valid(write, tmp_path):
    write({"name": "one", "content": "old\n"})
    answer = write(
        {"name": "one", "content": "new\n"}, {"name": "two", "content": "if true; then\n", "validate": "sh -n %s"}
    )
    assert answer["failed"] and answer["msg"].startswith(
        f"{tmp_path}/etc/two would not be valid, and nothing was changed:"
    )
    assert (tmp_path / "etc/one").read_text() == "old\n" and not (tmp_path / "etc/two").exists()
    assert write({"name": "two", "content": "true\n", "validate": "sh -n %s"})["changed"]


def test_a_rehearsal_tells_the_same_and_writes_nothing(write, tmp_path):
    write({"name": "one", "content": "old\n"})
    files = [
        {"name": "one", "content": "new\n"},
        {"name": "sub/two", "content": "2\n", "validate": "no-such-program %s"},
    ]
    told = write(*files, check=True)
    assert [item["name"] for item in told["files"]] == ["one", "sub/two"]
    assert (told["diff"][0]["before"], told["diff"][0]["after"]) == ("old\n", "new\n")
    assert (tmp_path / "etc/one").read_text() == "old\n" and not (tmp_path / "etc/sub").exists()


def test_a_secret_is_not_shown(write):
    secret = {"name": "users", "secret": True}
    write({**secret, "content": "password=before\n"})
    told = json.dumps(write({**secret, "content": "password=afterwards\n"}))
    assert "/users changes" in told and "password" not in told


@pytest.mark.parametrize("check", [True, False])
def test_a_mode_that_was_changed_is_put_right(write, tmp_path, check):
    write({"name": "one", "content": "1\n"})
    (tmp_path / "etc/one").chmod(0o644)
    told = write({"name": "one", "content": "1\n"}, check=check)
    assert [(diff["before"], diff["after"]) for diff in told["diff"]] == [({"mode": "0644"}, {"mode": "0640"})]
    assert told["files"] == [{"name": "one"}]
    assert (tmp_path / "etc/one").stat().st_mode & 0o777 == (0o644 if check else 0o640)


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(write, tmp_path):
    (tmp_path / "other").write_text("1\n")
    (tmp_path / "etc/one").symlink_to(tmp_path / "other")
    assert write({"name": "one", "content": "1\n"})["changed"]
    assert not (tmp_path / "etc/one").is_symlink() and (tmp_path / "other").stat().st_mode & 0o777 != 0o640


def test_what_cannot_be_read_is_told_in_a_sentence(write, tmp_path):
    (tmp_path / "etc/one").mkdir()
    assert write({"name": "one", "content": "1\n"})["msg"] == (
        f"{tmp_path}/etc/one cannot be read (Is a directory), and nothing was changed."
    )


@pytest.fixture
def play(tmp_path):
    """A function that renders and writes templates by a playbook on this machine, with other data."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/list.j2").write_text("[{{ first }}]\n\n")
    (tmp_path / "templates/plain.j2").write_text("{{ second }}\n")
    (tmp_path / "play.yml").write_text(
        yaml.safe_dump(
            [
                {
                    "name": "Write",
                    "hosts": "localhost",
                    "gather_facts": False,
                    "tasks": [
                        {
                            "name": "Write both",
                            "labredes.pbx.templates": {
                                "source": ".",
                                "directory": str(tmp_path),
                                "mode": "0600",
                                "files": [{"name": "list"}, {"name": "plain"}],
                            },
                        }
                    ],
                }
            ]
        )
    )

    def run(**data) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "play.yml", "-e", json.dumps(data)],
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_a_template_is_written_as_it_is_rendered(play, tmp_path):
    done = play(first="1", second="true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "list").read_text() == "[1]\n\n" and (tmp_path / "plain").read_text() == "true\n"


def test_a_template_that_cannot_be_rendered_is_named_before_anything_is_written(play, tmp_path):
    done = play(first="1")
    assert done.returncode == 2 and "plain.j2: " in done.stdout and "'second' is undefined" in done.stdout
    assert not (tmp_path / "list").exists()
