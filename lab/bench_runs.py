"""Measure: a whole run of site.yml that changes nothing, and one that changes a mailbox's name."""

from __future__ import annotations

import json
import pathlib
import sys

import yaml
from bench_clock import timed

import inventory

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS = 45
PART = 1 / 3


def measure(room: pathlib.Path, environment: dict[str, str]) -> dict[str, object]:
    """Run both on the lab host of `room`, which ends as it was; the figures, each with its limit."""
    playbook = [
        str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
        "site.yml",
        "-i",
        str(room / "inventory"),
    ]
    whole = timed("a run that changes nothing", playbook, cwd=ROOT, env=environment)
    given = inventory.read(room)[2]
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
