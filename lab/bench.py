#!/usr/bin/env python3
"""Measure new hosts, further runs, and calls; fails where a figure misses its limit. Prints one JSON object.

Without an argument everything is measured, which takes about an hour on two idle cores, and docs/performance.md is
written. Environment: DISTRIBUTION, and see lab.py.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
from typing import Any

import bench_calls
import bench_host
import bench_install
import bench_report
import bench_runs
import upstream
from shell import LabError, log

BOUNDS = {"_at_most": operator.le, "_at_least": operator.ge}
PARTS = ["cold", "warm", "runs", "calls"]


def measure(parts: list[str], rounds: int, suite: str) -> dict[str, Any]:
    """The figures of the parts, with their limits; each figure of several rounds is their median."""
    figures: dict[str, Any] = {}
    if "cold" in parts:
        chosen = upstream.choose(*(os.environ.get(name, "") for name in ("RELEASE", "MIRROR", "GIT")))
        figures |= bench_install.cold(rounds, suite, chosen)
    if "warm" in parts:
        figures |= bench_install.warm(rounds, suite)
    if "runs" in parts or "calls" in parts:
        with bench_host.fresh(suite) as directory:
            bench_host.site("an exchange", directory)
            if "runs" in parts:
                figures |= bench_runs.measure(directory, rounds)
            if "calls" in parts:
                figures |= bench_calls.measure(directory, suite)
    if {"cold", "warm"} <= set(parts):
        figures["warm_of_cold"] = round(figures["warm_seconds"] / figures["cold_seconds"], 3)
        figures["warm_of_cold_at_most"] = 0.25
    return figures


def missed(figures: dict[str, Any]) -> list[str]:
    """The names of the figures that miss their limits; NAME_at_most and NAME_at_least are NAME's.

    A figure that could not be measured, or whose limit could not, is missed.
    """
    return [
        name
        for name, figure in figures.items()
        for bound, holds in BOUNDS.items()
        if name + bound in figures
        and (None in (figure, figures[name + bound]) or not holds(figure, figures[name + bound]))
    ]


def main() -> None:
    """Run the measurements of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="how often installations and runs are measured")
    options = parser.parse_args()
    suite = os.environ.get("DISTRIBUTION", "bullseye")
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"{unknown[0]} is no part: choose from {', '.join(PARTS)}")
    parts = options.parts or PARTS
    figures = measure(parts, options.rounds, suite)
    print(json.dumps(figures, indent=2))
    if parts == PARTS:
        bench_report.write(figures, missed(figures), suite, options.rounds)
    if names := missed(figures):
        raise LabError(f"missed: {', '.join(names)}")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        log(str(error))
        raise SystemExit(1) from None
