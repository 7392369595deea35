"""`make platforms` says of each platform what came of it, and fails where one has a fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/tools"))
import platforms  # noqa: E402  the path has to be set first


@pytest.mark.parametrize(
    ("word", "release", "mirror"),
    [
        ("trixie:22", "22.10.1", ""),
        ("bullseye:18", "18.26.4", ""),
        ("bookworm:18.2.0:/srv/sources", "18.2.0", "/srv/sources"),
        ("bookworm:99:https://mirror.example.org/a", "99", "https://mirror.example.org/a"),
    ],
)
def test_word_names_a_platform(word, release, mirror):
    platform = platforms.Platform.of(word)
    assert (platform.distribution, platform.release, platform.mirror) == (word.split(":")[0], release, mirror)


def test_newest_release_is_that_of_the_highest_number():
    assert platforms.newest("18", ["18.9.0", "18.26.4", "22.10.1", "18.2.0"]) == "18.26.4"


@pytest.mark.parametrize("word", ["buster:22", "trixie", "trixie:", ":22"])
def test_word_that_names_no_platform_is_refused(word):
    with pytest.raises(SystemExit, match=f"{word} is no platform; write bullseye or bookworm or trixie"):
        platforms.Platform.of(word)


@pytest.fixture
def outcome(tmp_path, monkeypatch, capsys):
    """A function that runs platforms whose steps end as given; the exit code and the lines of the table."""

    def run(*words: str, lab: int = 0, changed: str = "0", site: int = 0, tests: str = "5 passed in 61.20s", failed=0):
        def command(words, **options):
            name = next((str(word) for word in words if str(word) in ("create", "down", "ssh", "pytest")), "")
            output, code = {"create": ("", lab), "ssh": ("Asterisk 22.10.1\n", 0), "pytest": (tests, failed)}.get(
                name, ("", 0)
            )
            ran.append([Path(word).name for word in words] if name == "pytest" else name)
            return subprocess.CompletedProcess(words, code, output, "")

        def play(directory, **options):
            ran.append("site")
            count = changed if ran.count("site") % 2 == 0 else "93"
            return subprocess.CompletedProcess([], site, f'"msg": "No disk."\nchanged=0 x\nchanged={count}', "")

        ran: list = []
        monkeypatch.setattr(platforms.subprocess, "run", command)
        monkeypatch.setattr(platforms.playbook, "play", play)
        monkeypatch.setattr(platforms.Platform, "directory", tmp_path)
        monkeypatch.setattr(sys, "argv", ["platforms.py", *words])
        return platforms.main(), capsys.readouterr().out.splitlines()[2:], ran

    return run


def test_platform_that_passes_is_a_row(outcome):
    code, rows, _ran = outcome("trixie:22")
    assert (code, rows) == (0, ["| Debian 13 | 22.10.1 | 0 s | changed=0 | 5 passed in 61 s |"])


@pytest.mark.parametrize(
    ("fault", "row"),
    [
        ({"changed": "2"}, "0 s | changed=2 | 5 passed in 61 s; the second run changed the host |"),
        ({"lab": 1}, "|  |  | the lab host could not be created |"),
        ({"site": 2}, "first.log: No disk. |"),
        (
            {"tests": "FAILED tests/site/test_calls.py::test_x[a] - no\n1 failed, 4 passed in 9s", "failed": 1},
            "1 failed, 4 passed in 9 s; test_x[a] |",
        ),
        ({"tests": "", "failed": 2}, "no test ran; exit code 2, see "),
    ],
)
def test_fault_is_named_and_fails_the_run(outcome, fault, row):
    code, rows, ran = outcome("bullseye:22", **fault)
    assert code == 1 and row in rows[0], rows
    assert ran[-1] == "down"


def test_what_depends_on_the_distribution_is_tested_once(outcome):
    _code, rows, ran = outcome("bullseye:22", "bullseye:18", "trixie:22")
    assert len(rows) == 3
    assert ["test_events.py" in words for words in ran if isinstance(words, list)] == [True, False, True]


def test_every_distribution_runs_with_each_release(outcome):
    _code, rows, _ran = outcome("--releases", "22", "18.2.0:/srv/sources")
    assert len({row.split(" | ")[0] for row in rows}) == 3 and len(rows) == 6


def test_tests_exist():
    for name in platforms.TESTS + platforms.TESTS_OF_DISTRIBUTION:
        assert (ROOT / "tests/site" / name).is_file()
