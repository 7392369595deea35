#!/usr/bin/env python3
"""Measure the installation, further runs and calls; fails where a figure exceeds its limit. Prints one JSON object.

Without an argument everything is measured on a host that is removed at the end. `runs` and `calls` measure an
existing lab: `lab/bench.py calls --dir .lab`. Environment: see lab.py.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from typing import Any

import bench_calls
import bench_install
import bench_runs
from shell import LabError, log

BOUNDS = {"_at_most": lambda figure, limit: figure <= limit, "_at_least": lambda figure, limit: figure >= limit}


def everything() -> dict[str, Any]:
    """All measurements, on the host that the first one creates."""
    with bench_install.measured() as (directory, environment, figures):
        return {**figures, **bench_runs.measure(directory, environment), **bench_calls.measure(directory)}


def missed(figures: dict[str, Any]) -> list[str]:
    """The names of the figures that miss their limits; NAME_at_most and NAME_at_least are NAME's."""
    return [
        name
        for name, figure in figures.items()
        for bound, holds in BOUNDS.items()
        if name + bound in figures and not holds(figure, figures[name + bound])
    ]


def main() -> None:
    """Run the measurements of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", nargs="?", choices=["all", "runs", "calls"], default="all")
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(".lab"), help="the lab of runs and calls")
    options = parser.parse_args()
    directory = options.dir.resolve()
    figures = {
        "all": everything,
        "runs": lambda: bench_runs.measure(directory, dict(os.environ)),
        "calls": lambda: bench_calls.measure(directory),
    }[options.measure]()
    print(json.dumps(figures, indent=2))
    if names := missed(figures):
        raise LabError(f"missed: {', '.join(names)}")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        log(str(error))
        raise SystemExit(1) from None
