"""Module templates on this machine: the files it writes, the files it leaves alone, and its results."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.labredes.pbx.plugins.modules import templates

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def write(tmp_path, run_module):
    """A function that runs the module on files below tmp_path/etc and gives its answer."""
    (tmp_path / "etc").mkdir()

    def run(*files: dict, check: bool = False, **options: object) -> dict:
        arguments = {
            "source": "etc",
            "directory": str(tmp_path / "etc"),
            "mode": "0640",
            "files": list(files),
            "_ansible_no_log": True,
            **options,
        }
        return run_module(templates, check, **arguments)

    return run


def test_files_are_written_once_and_returned_as_given(write, tmp_path):
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


def test_failure_carries_no_content_of_any_file(write):
    invalid = {"name": "users", "secret": True, "content": "password=1\n", "validate": "false %s"}
    after = {"name": "later", "secret": True, "content": "password=2\n"}
    assert "password" not in json.dumps(write(invalid, after))
    unknown_owner = {"owner": "no-such-user-here"}
    answer = write({"name": "users", "content": "password=1\n"}, after, **unknown_owner)
    assert answer["failed"] and "password" not in json.dumps(answer)


def test_check_mode_reports_changes_and_writes_nothing(write, tmp_path):
    write({"name": "one", "content": "old\n"})
    files = [
        {"name": "one", "content": "new\n"},
        {"name": "sub/two", "content": "2\n", "validate": "no-such-program %s"},
    ]
    answer = write(*files, check=True)
    assert [item["name"] for item in answer["files"]] == ["one", "sub/two"]
    assert (answer["diff"][0]["before"], answer["diff"][0]["after"]) == ("old\n", "new\n")
    assert (tmp_path / "etc/one").read_text() == "old\n" and not (tmp_path / "etc/sub").exists()


def test_secret_file_is_not_in_the_diff(write):
    secret = {"name": "users", "secret": True}
    write({**secret, "content": "password=before\n"})
    answer = json.dumps(write({**secret, "content": "password=afterwards\n"}))
    assert "/users changes" in answer and "password" not in answer


@pytest.mark.parametrize("check", [True, False])
def test_changed_mode_is_corrected(write, tmp_path, check):
    write({"name": "one", "content": "1\n"})
    (tmp_path / "etc/one").chmod(0o644)
    answer = write({"name": "one", "content": "1\n"}, check=check)
    assert [(diff["before"], diff["after"]) for diff in answer["diff"]] == [({"mode": "0644"}, {"mode": "0640"})]
    assert answer["files"] == [{"name": "one"}]
    assert (tmp_path / "etc/one").stat().st_mode & 0o777 == (0o644 if check else 0o640)


def test_link_is_replaced_and_its_target_is_unchanged(write, tmp_path):
    (tmp_path / "other").write_text("1\n")
    (tmp_path / "etc/one").symlink_to(tmp_path / "other")
    assert write({"name": "one", "content": "1\n"})["changed"]
    assert not (tmp_path / "etc/one").is_symlink() and (tmp_path / "other").stat().st_mode & 0o777 != 0o640


def test_unreadable_file_is_reported_in_a_sentence(write, tmp_path):
    (tmp_path / "etc/one").mkdir()
    assert write({"name": "one", "content": "1\n"})["msg"] == (
        f"{tmp_path}/etc/one cannot be read (Is a directory), and nothing was changed."
    )


def test_bytes_are_written_below_new_directories(write, tmp_path):
    content = bytes(range(256))
    copied = {"name": "a/b/c.bin", "from": "/c.bin", "base64": base64.b64encode(content).decode()}
    answer = write(copied)
    assert answer["paths"] == [f"{tmp_path}/etc/a/b/c.bin"]
    assert (tmp_path / "etc/a/b/c.bin").read_bytes() == content
    assert [(tmp_path / "etc" / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o755]
    again = write(copied)
    assert (again["changed"], again["diff"]) == (False, [])
    (tmp_path / "etc/a/b/c.bin").write_bytes(b"by hand")
    assert write(copied)["changed"]
    assert (tmp_path / "etc/a/b/c.bin").read_bytes() == content


def test_file_may_have_a_mode_of_its_own(write, tmp_path):
    write({"name": "one", "content": "1\n", "mode": "0600"}, {"name": "two", "content": "2\n"})
    assert [(tmp_path / "etc" / name).stat().st_mode & 0o777 for name in ("one", "two")] == [0o600, 0o640]


@pytest.mark.parametrize("check", [False, True])
def test_directory_is_made_with_its_own_mode_and_corrected(write, tmp_path, check):
    new = tmp_path / "etc/one/two"
    options = {"directories": [{"name": "one/two", "mode": "0750"}, {"name": ".", "mode": "0711"}]}
    answer = write({"name": "one/two/three", "content": "3\n"}, check=check, **options)
    assert (answer["changed"], answer["directories"]) == (True, [str(new)])
    if check:
        assert not new.exists() and (tmp_path / "etc").stat().st_mode & 0o777 == 0o755
        return
    assert [path.stat().st_mode & 0o777 for path in (new, new.parent, tmp_path / "etc")] == [0o750, 0o755, 0o711]
    again = write({"name": "one/two/three", "content": "3\n"}, **options)
    assert (again["changed"], again["directories"], again["diff"]) == (False, [], [])
    new.chmod(0o777)
    assert write({"name": "one/two/three", "content": "3\n"}, **options)["changed"]
    assert new.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("check", [True, False])
def test_absent_file_is_removed(write, tmp_path, check):
    (tmp_path / "etc/former").symlink_to("nowhere")
    answer = write({"name": "one", "content": "1\n"}, absent=["former", "never"], check=check)
    assert {"prepared": f"{tmp_path}/etc/former is removed.\n"} in answer["diff"]
    assert (tmp_path / "etc/former").is_symlink() == check
    again = write({"name": "one", "content": "1\n"}, absent=["former", "never"], check=check)
    assert again["changed"] == check


@pytest.mark.parametrize("check", [True, False])
def test_purged_directory_keeps_its_own_files_alone(write, tmp_path, check):
    kept = {"name": "program/web/page.js", "content": "1\n"}
    write(kept, {"name": "program/old.py", "content": "2\n"}, {"name": "beside", "content": "3\n"})
    (tmp_path / "etc/program/gone/deep").mkdir(parents=True)
    (tmp_path / "etc/program/gone/deep/file").write_text("4\n")
    (tmp_path / "etc/program/link").symlink_to(tmp_path / "etc/beside")
    answer = write(kept, purge=[f"{tmp_path}/etc/program"], check=check)
    gone = ["gone", "link", "old.py"]
    assert answer["changed"] and [diff["prepared"] for diff in answer["diff"]] == [
        f"{tmp_path}/etc/program/{name} is removed.\n" for name in gone
    ]
    left = sorted(path.name for path in (tmp_path / "etc/program").iterdir())
    assert left == (sorted([*gone, "web"]) if check else ["web"])
    assert (tmp_path / "etc/beside").read_text() == "3\n"
    again = write(kept, purge=[f"{tmp_path}/etc/program"], check=check)
    assert again["changed"] == check


@pytest.fixture
def play(tmp_path):
    """A function that renders and writes templates by a playbook on this machine, with other data."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/list.j2").write_text("[{{ first }}]\n\n")
    (tmp_path / "templates/plain.j2").write_text("{{ second }}\n")
    (tmp_path / "program/__pycache__").mkdir(parents=True)
    (tmp_path / "program/__pycache__/a.pyc").write_bytes(b"")
    (tmp_path / "program/web").mkdir()
    (tmp_path / "program/web/a.js").write_bytes(b"{{ not }} a template \xff")
    (tmp_path / "program/empty").touch()

    def run(*options: str, validate: str = "", **data) -> subprocess.CompletedProcess[str]:
        module = {
            "source": ".",
            "directory": str(tmp_path),
            "mode": "0600",
            "files": [
                {"name": "list", "secret": True, "validate": validate},
                {"name": "plain", "secret": True},
                {"name": "other", "template": "plain", "secret": True},
                {"name": "copied", "from": str(tmp_path / "program")},
            ],
            "absent": ["former"],
            "purge": [f"{tmp_path}/copied"],
        }
        facts = {"name": "Connect", "ansible.builtin.set_fact": {"ansible_facts": {"distribution": "Debian"}}}
        tasks = [facts, {"name": "Write both", "labredes.pbx.templates": module}]
        play = {"name": "Write", "hosts": "localhost", "gather_facts": False, "tasks": tasks}
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
        (tmp_path / "data.json").write_text(json.dumps(data))
        program = Path(sys.executable).with_name("ansible-playbook")
        return subprocess.run(
            [program, tmp_path / "play.yml", "-e", f"@{tmp_path}/data.json", *options],
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_file_equals_the_rendered_template(play, tmp_path):
    done = play(first="1", second="true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "list").read_text() == "[1]\n\n"
    assert (tmp_path / "plain").read_text() == (tmp_path / "other").read_text() == "true\n"


def test_files_are_not_written_without_facts(play, tmp_path):
    done = play("--start-at-task=Write both", first="1", second="true")
    assert done.returncode == 2 and "localhost: no facts of the host; run without --start-at-task, or" in done.stdout
    assert not (tmp_path / "list").exists()


def test_directory_of_the_controller_is_copied_as_it_is(play, tmp_path):
    done = play("--diff", first="1", second="2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{tmp_path}/copied/web/a.js changes.\n" in done.stdout and "a template" not in done.stdout
    assert {path.name for path in (tmp_path / "copied").rglob("*")} == {"web", "a.js", "empty"}
    assert (tmp_path / "copied/web/a.js").read_bytes() == b"{{ not }} a template \xff"
    (tmp_path / "program/web/a.js").chmod(0o644)
    (tmp_path / "program/web/b.js").symlink_to("/no/such/file")
    assert "changed=0" in play(first="1", second="2").stdout


def test_undefined_name_fails_before_any_file_is_written(play, tmp_path):
    done = play(first="1")
    assert done.returncode == 2 and "plain.j2: " in done.stdout and "'second' is undefined" in done.stdout
    assert not (tmp_path / "list").exists()


def test_failed_validation_shows_no_secret_at_vvv(play):
    done = play("-vvv", "--diff", validate="false %s", first="pa55word-1", second="pa55word-2")
    assert done.returncode == 2 and "/list would not be valid, and nothing was changed" in done.stdout, done.stdout
    assert "pa55word" not in done.stdout + done.stderr


def test_unchanged_files_need_no_module(play, tmp_path):
    data = {"first": "1", "second": "2"}
    assert "changed=1" in play(**data).stdout
    no_python = {"ansible_python_interpreter": "/bin/false"}
    assert "changed=0" in play(**data, **no_python).stdout
    by_hand = [
        "echo >>list",
        "chmod o+r list",
        "ln -f -s plain list",
        "touch copied/more",
        "rm -r copied",
        ">plain",
        ">former",
    ]
    for command in by_hand:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
        assert play(**data, **no_python).returncode == 2, command
        assert "changed=1" in play(**data).stdout, command
        assert "changed=0" in play(**data, **no_python).stdout, command
