"""Measure runs on a finished host: one that changes nothing, and one that renames a phone."""

from __future__ import annotations

import json
import pathlib
import statistics
from typing import Any

import bench_host
import yaml

import inventory


def measure(directory: pathlib.Path, count: int) -> dict[str, Any]:
    """Run both on the lab host of `directory`, each `count` times; the phone has its name again at the end."""
    given = inventory.read(directory)[2]
    defaults = yaml.safe_load((bench_host.ROOT / "roles/pbx/defaults/main.yml").read_text())
    *others, last = given.get("pbx_phones") or defaults["pbx_phones"]
    renamed = json.dumps({"pbx_phones": [*others, {**last, "name": last["name"][::-1]}]})
    idle, changes = [], []
    for _ in range(count):
        idle.append(bench_host.site("a run that changes nothing", directory))
        for what, more in (("another name for a phone", ["-e", renamed]), ("its old name", [])):
            changes.append(bench_host.site(what, directory, "--tags", "pbx", *more)["seconds"])
    seconds = statistics.median(one["seconds"] for one in idle)
    return {
        "no_change_rounds": [one["seconds"] for one in idle],
        "no_change_seconds": seconds,
        "no_change_seconds_at_most": 15,
        "no_change_tasks": idle[-1]["tasks"],
        "no_change_round_trips": idle[-1]["trips"],
        "no_change_parts": idle[-1]["parts"],
        "phone_change_rounds": changes,
        "phone_change_seconds": round(statistics.median(changes), 2),
        "phone_change_seconds_at_most": 5,
    }
