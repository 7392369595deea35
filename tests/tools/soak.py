#!/usr/bin/env python3
"""Kills runs of the whole site at random steps on the host of `make lab`: `make soak`.

Each run changes a value of every service, or changes it back, and is killed after a random task. The next run has to
end green with what is described in force, and the one after it has to change nothing. Prints one line for each kill,
then a JSON object with the figures and their limits; exits with code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "tests/site")]

import playbook  # noqa: E402
from interrupted import LOOK, OTHER, changes, in_force, killed  # noqa: E402
from lab_host import LabHost  # noqa: E402


def main() -> int:
    """Kill and complete as many runs as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=ROOT / ".lab", help="directory of the lab")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    options = parser.parse_args()
    directory, chance = options.dir.resolve(), random.Random(options.seed)
    changes(directory)
    whole = playbook.play(directory).stdout
    steps = {"before": whole.count("\nTASK ["), "after": max(map(int, re.findall(r"ok=(\d+)", whole)))}
    wrong, unfinished = [], []
    for number in range(1, options.kills + 1):
        other = number % 2 == 1
        variables = OTHER if other else {}
        moment = chance.choice(sorted(steps))
        step = f"*#{chance.randrange(1, steps[moment])}:{moment}"
        killed(directory, step, **variables)
        completed = changes(directory, **variables)
        different = [name for name, value in in_force(LabHost(directory).run).items() if value is not other]
        again = changes(directory, **variables)
        wrong += [(step, different)] if different else []
        unfinished += [(step, again)] if again else []
        print(
            f"kill {number}, {step}: changed={completed}, then {again}; differs: {different or 'nothing'}", flush=True
        )
    changes(directory)
    print(json.dumps({"seed": options.seed, "kills": options.kills, "services": len(LOOK), "differences": wrong,
                      "differences_at_most": 0, "changed_again": unfinished, "changed_again_at_most": 0}))  # fmt: skip
    return int(bool(wrong or unfinished))


if __name__ == "__main__":
    sys.exit(main())
