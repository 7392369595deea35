#!/usr/bin/env python3
"""Measure what must be reached, and fail where it is not: one JSON object with each figure and its limit.

Without a measure all of them run, on a host of their own that is removed at the end. `runs` and `calls` run
alone on a lab that is there: `lab/bench.py calls --dir .lab`. Environment: as of lab.py.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib

import bench_calls
import bench_install
import bench_runs
from shell import LabError, say

BOUNDS = {"_at_most": lambda figure, limit: figure <= limit, "_at_least": lambda figure, limit: figure >= limit}


def everything() -> dict[str, object]:
    """All measures, sharing the host that the first one makes."""
    with bench_install.measured() as (room, environment, figures):
        return {**figures, **bench_runs.measure(room, environment), **bench_calls.measure(room)}


def missed(figures: dict[str, object]) -> list[str]:
    """The names of the figures that miss their limits; NAME_at_most and NAME_at_least are NAME's."""
    return [
        name
        for name, figure in figures.items()
        for bound, holds in BOUNDS.items()
        if name + bound in figures and not holds(figure, figures[name + bound])
    ]


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", nargs="?", choices=["all", "runs", "calls"], default="all")
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(".lab"), help="the lab of runs and calls")
    options = parser.parse_args()
    room = options.dir.resolve()
    figures = {
        "all": everything,
        "runs": lambda: bench_runs.measure(room, dict(os.environ)),
        "calls": lambda: bench_calls.measure(room),
    }[options.measure]()
    print(json.dumps(figures, indent=2))
    if names := missed(figures):
        raise LabError(f"missed: {', '.join(names)}")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        say(str(error))
        raise SystemExit(1) from None
