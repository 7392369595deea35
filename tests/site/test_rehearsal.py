"""Check mode tells the truth about a finished host: there is nothing to change."""

from __future__ import annotations

import re

from playbook import play


def test_a_rehearsal_on_the_finished_host_finds_nothing_to_change(room):
    done = play(room, "--check", seconds=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, re.findall(
        r"TASK \[.*\n(?:.*\n)?changed:.*", done.stdout
    )
