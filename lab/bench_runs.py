"""Measure a whole run of site.yml that changes nothing, and one that renames a mailbox."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import yaml
from bench_clock import timed

import inventory

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS = 45
PART = 1 / 3


def measure(directory: pathlib.Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run both on the lab host of `directory`, and undo the change; returns the figures and their limits."""
    playbook = [
        str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
        "site.yml",
        "-i",
        str(directory / "inventory"),
    ]
    whole = timed("a run that changes nothing", playbook, cwd=ROOT, env=environment)
    given = inventory.read(directory)[2]
    *others, last = (
        given.get("pbx_phones") or yaml.safe_load((ROOT / "roles/pbx/defaults/main.yml").read_text())["pbx_phones"]
    )
    renamed = json.dumps({"pbx_phones": [*others, {**last, "name": last["name"][::-1]}]})
    part = [*playbook, "--tags", "pbx"]
    change = timed("another name for a mailbox", [*part, "-e", renamed], cwd=ROOT, env=environment)
    back = timed("its old name", part, cwd=ROOT, env=environment)
    slower = max(change, back)
    return {
        "no_change_seconds": round(whole, 1),
        "no_change_at_most": SECONDS,
        "no_change_ratio": round(whole / SECONDS, 3),
        "no_change_ratio_at_most": 1,
        "mailbox_change_seconds": round(slower, 1),
        "mailbox_change_ratio": round(slower / whole, 3),
        "mailbox_change_ratio_at_most": round(PART, 3),
    }
