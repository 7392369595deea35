"""Check mode on a finished host."""

from __future__ import annotations

import re

from playbook import play


def test_check_mode_reports_no_change_on_finished_host(lab_directory):
    done = play(lab_directory, "--check", seconds=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, re.findall(
        r"TASK \[.*\n(?:.*\n)?changed:.*", done.stdout
    )
