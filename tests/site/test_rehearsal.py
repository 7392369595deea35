"""Check mode tells the truth about a finished host: there is nothing to change."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_rehearsal_on_the_finished_host_finds_nothing_to_change(room):
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run([program, "site.yml", "--check", "-i", room / "inventory"], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, re.findall(r"TASK \[.*\n(?:.*\n)?changed:.*", done.stdout)
