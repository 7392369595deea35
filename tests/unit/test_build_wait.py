"""The wait for a build, without a host: what it displays and when it ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.labredes.pbx.plugins.action import build_wait


@pytest.fixture(name="wait")
def fixture_wait(monkeypatch):
    """A function from progress.sh's answers and a timeout to the result, the lines displayed and the calls made."""
    clock = iter(range(0, 10000, 10))
    monkeypatch.setattr(build_wait.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(build_wait.ActionBase, "run", lambda *_words: {})

    def run(answers, timeout=3600):
        lines, calls, rest = [], [], list(answers)
        monkeypatch.setattr(build_wait, "display", SimpleNamespace(display=lines.append))
        action = build_wait.ActionModule.__new__(build_wait.ActionModule)
        action._task = SimpleNamespace(args={"unit": "u", "package": "/w/a.deb", "timeout": str(timeout)})

        def call(command):
            calls.append(command)
            code, text = rest.pop(0)
            return {"rc": code, "stdout": text + "\n", "stdout_lines": [text], "stderr": ""}

        action._low_level_execute_command = call
        return action.run(task_vars={"inventory_hostname": "pbx1"}), lines, calls

    return run


def test_progress_is_displayed_until_the_package_is_built(wait):
    result, lines, calls = wait([(3, "step 1"), (3, "step 4, 5 done"), (0, "")])
    assert result == {"changed": False, "seconds": 30}
    assert lines == ["    pbx1: step 1 (10 s)", "    pbx1: step 4, 5 done (20 s)"]
    # The first call does not wait: what is under way is displayed at once.
    assert calls == ["sh /w/progress.sh u /w/a.deb 0", *["sh /w/progress.sh u /w/a.deb 15"] * 2]


def test_failed_build_is_one_sentence(wait):
    result, lines, _ = wait([(1, "x.c:1: error: y")])
    assert result["failed"] and not lines
    assert result["msg"] == (
        "pbx1: the build failed: x.c:1: error: y (the output is in /w/build.log; run again to repeat it)"
    )


def test_timeout_ends_the_wait_and_not_the_build(wait):
    result, lines, calls = wait([(3, "step 4")] * 9, timeout=25)
    assert result["failed"] and result["msg"].endswith("is still running after 30 s; the next run waits for it again")
    assert len(lines) == 3 and calls[-1].endswith(" 5")
