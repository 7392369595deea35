"""What a service has read of its files, by plugins/module_utils/read_files.py."""

from __future__ import annotations

import os
import time

import pytest
from ansible_collections.labredes.pbx.plugins.module_utils import read_files


def state(started: float, invocation: str = "one") -> dict:
    """The state of an active unit that started so many seconds ago."""
    now = time.clock_gettime(read_files.BOOTTIME)
    return {"ExecMainStartTimestampMonotonic": str(int((now - started) * 1e6)), "InvocationID": invocation}


@pytest.fixture
def look(tmp_path):
    """A function that looks at the files one and two at this moment."""
    paths = [str(tmp_path / name) for name in ("one", "two")]
    for path in paths:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("1")

    def now() -> read_files.ReadFiles:
        return read_files.ReadFiles("service", paths, directory=str(tmp_path / "run"))

    now.paths = paths
    return now


def test_files_older_than_the_process_are_read(look):
    time.sleep(0.05)
    assert look().unread(state(started=0.01)) == []
    assert look().unread(state(started=60)) == look.paths


@pytest.mark.parametrize("change", ["edited", "replaced", "restored", "removed"])
def test_changed_file_is_unread_after_a_note(look, change):
    look().save(state(0), look.paths)
    assert look().unread(state(60)) == []
    one = look.paths[0]
    if change == "edited":
        with open(one, "a", encoding="utf-8") as stream:
            stream.write("2")
    elif change == "removed":
        os.unlink(one)
    else:
        os.rename(one, one + ".old")
        with open(one, "w", encoding="utf-8") as stream:
            stream.write("1")
        if change == "restored":  # as `cp -p` does, with the times of the file that was there
            os.utime(one, ns=(0, os.stat(one + ".old").st_mtime_ns))
    assert look().unread(state(60)) == [one]


def test_note_of_another_invocation_is_void(look):
    look().save(state(0), look.paths)
    assert look().unread(state(60, "two")) == look.paths


def test_file_changed_after_the_look_stays_unread(look):
    before = look()
    with open(look.paths[1], "a", encoding="utf-8") as stream:
        stream.write("2")
    before.save(state(0), look.paths)
    assert look().unread(state(60)) == [look.paths[1]]


def test_broken_note_counts_as_none(look, tmp_path):
    look().save(state(0), look.paths)
    (tmp_path / "run/service.json").write_text('{"invocation": "one", "fi')
    assert look().unread(state(60)) == look.paths


def test_saving_what_is_noted_writes_nothing(look, tmp_path):
    look().save(state(0), look.paths)
    before = os.stat(tmp_path / "run/service.json")
    look().save(state(0), look.paths[:1])
    assert os.stat(tmp_path / "run/service.json").st_ino == before.st_ino
