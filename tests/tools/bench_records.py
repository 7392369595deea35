#!/usr/bin/env python3
"""Measures the journal of call records on the host of `make lab`: `make bench-records`.

Places calls by turns with the journal and without it, which must not be faster. Then it measures the time from the
moment that a call's record is in the journal to the moment that PostgreSQL has it, which Asterisk itself does not write
to meanwhile. Prints a JSON object with the figures and their limits; exits with code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / path) for path in ("collections", "lab", "tests/site")]

import bench  # noqa: E402
import bench_sipp  # noqa: E402
import test_call_records as site  # noqa: E402
from bench_events import CALLEE, CALLER, place, telephones  # noqa: E402
from lab_host import LabHost  # noqa: E402

TURN = 20  # calls; Asterisk restarts before each turn, since no module is unloaded
WARM = 3  # calls of each turn that do not count


def setup_times(lab: dict, host: LabHost, count: int) -> dict[bool, list[float]]:
    """The setup times of calls in ms, with the journal and without."""
    phones = telephones(lab)
    found: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(-(-count // TURN)):
        # Which of the two is first changes, so that a slow moment does not hit the same one always.
        for journal in (True, False) if turn % 2 else (False, True):
            site.restart(host.run, "" if journal else "cdr_sqlite3_custom")
            found[journal] += place(phones, TURN + WARM)[1][WARM:]
    for phone in phones:
        phone.connection.close()
    return found


def delays(lab: dict, host: LabHost, count: int) -> list[float]:
    """How long records take from the journal to PostgreSQL, in s, at ten calls a second."""
    site.restart(host.run, "cdr_pgsql")
    host.run(
        f"cat > /var/tmp/watch-records.py <<'END'\n{site.WATCH}\nEND\ngpasswd --add postgres labredes-cdr >/dev/null"
    )
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    bench_sipp.register(lab, CALLEE, 300)
    answer = bench_sipp.command(lab, CALLEE, "answer", "-m", str(2 * count), "-d", "100", "-timeout", "300s")
    dial = ["-key", "caller", CALLER, "-m", str(count), "-l", str(count), "-r", "10", "-d", "1000", "-timeout", "300s"]
    try:
        with subprocess.Popen(answer, **quiet) as answering:
            calling = subprocess.Popen(bench_sipp.command(lab, CALLER, "uac", *dial, service=CALLEE), **quiet)
            watch = f"cd / && sudo -u postgres python3 /var/tmp/watch-records.py {count // 10 + 6}"
            watched = host.run(watch, seconds=count // 10 + 60)
            assert calling.wait(timeout=120) == 0, "a call has failed"
            answering.kill()
    finally:
        host.run("gpasswd --delete postgres labredes-cdr >/dev/null; rm /var/tmp/watch-records.py")
    return sorted(float(word) for word in watched.split())


def main() -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=ROOT / ".lab", help="directory of the lab")
    parser.add_argument("--calls", type=int, default=200, help="with the journal, and as many without")
    options = parser.parse_args()
    host = LabHost(options.dir.resolve())
    info = [sys.executable, ROOT / "lab/lab.py", "info", "--dir", host.directory]
    lab = json.loads(subprocess.run(info, capture_output=True, text=True, check=True).stdout)
    try:
        setups = setup_times(lab, host, options.calls)
        waits = delays(lab, host, options.calls)
    finally:
        site.restart(host.run)
    medians = {journal: statistics.median(times) for journal, times in setups.items()}
    figures = {
        "calls": len(setups[True]),
        "setup_ms": round(medians[True], 2),
        "setup_ms_without_journal": round(medians[False], 2),
        "setup_ratio": round(medians[True] / medians[False], 3),
        "setup_ratio_at_most": 1.05,
        "records": len(waits),
        "records_at_least": round(options.calls * 0.9),
        "arrival_seconds_median": statistics.median(waits),
        "arrival_seconds_p99": waits[int(len(waits) * 0.99)],
        "arrival_seconds_p99_at_most": 2,
    }
    print(json.dumps(figures, indent=2))
    return int(bool(bench.missed(figures)))


if __name__ == "__main__":
    sys.exit(main())
