#!/usr/bin/env python3
"""10,000 call records, while PostgreSQL and the forwarder are killed and frozen at random: `make soak-records`.

Needs no lab host. Then measures how fast records that have waited are forwarded. Prints a JSON object with the figures
and their limits; exits with code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / path) for path in ("lab", "tests/unit")]

from ansible.plugins.loader import init_plugin_loader  # noqa: E402

init_plugin_loader([str(ROOT / "collections")])

import bench  # noqa: E402
import records  # noqa: E402

FROZEN = "m.ANSWER = 2; m.LONGEST = 2"  # seconds, so that the test sees more outages in its time


def disturb(server: records.Server, forwarder: records.Forwarder, chance: random.Random, done: threading.Event) -> dict:
    """Disturb both until it is done; returns how often each was done."""
    counts = dict.fromkeys(("killed", "restarted", "frozen", "frozen_for_long", "forwarder_killed"), 0)
    while not done.wait(chance.uniform(0.2, 1.5)):
        what = chance.choice(list(counts))
        counts[what] += 1
        if what == "killed":
            server.kill()
            done.wait(chance.uniform(0, 3))
            server.start()
        elif what == "restarted":
            server.signal(signal.SIGINT)
            server.process.wait()
            server.start()
        elif what.startswith("frozen"):
            server.signal(signal.SIGSTOP)
            done.wait(4 if what == "frozen_for_long" else chance.uniform(0.1, 1))
            server.signal(signal.SIGCONT)
        else:
            forwarder.stop(signal.SIGKILL)
            forwarder.start(FROZEN)
    return counts


def main() -> int:
    """Write, disturb, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    chance, done, counts = random.Random(options.seed), threading.Event(), {}
    server = records.Server()
    with tempfile.TemporaryDirectory(prefix="soak-records-") as temporary:
        forwarder = records.Forwarder(Path(temporary), server)
        forwarder.prepare()
        forwarder.start(FROZEN)
        try:
            disturber = threading.Thread(target=lambda: counts.update(disturb(server, forwarder, chance, done)))
            disturber.start()
            for begin in range(0, options.records, 20):
                forwarder.write(*(records.record(one) for one in range(begin, min(begin + 20, options.records))))
                time.sleep(0.1)
            done.set()
            disturber.join()
            forwarder.wait(120)
            rows, distinct = server.query("SELECT count(*), count(DISTINCT sequence) FROM cdr")[0]
            rejected = forwarder.status()["rejected"]
            forwarder.stop()
            server.query("TRUNCATE cdr")
            forwarder.write(*(records.record(one) for one in range(10000)))
            began = time.monotonic()
            forwarder.start()
            forwarder.wait(120)
            rate = 10000 / (time.monotonic() - began)
        finally:
            done.set()
            forwarder.stop()
            server.close()
    figures = {
        "seed": options.seed,
        "records": options.records,
        **counts,
        "lost": options.records - distinct,
        "lost_at_most": 0,
        "doubled": rows - distinct,
        "doubled_at_most": 0,
        "rejected": rejected,
        "rejected_at_most": 0,
        "records_a_second": round(rate),
        "records_a_second_at_least": 2000,
    }
    print(json.dumps(figures, indent=2))
    return int(bool(bench.missed(figures)))


if __name__ == "__main__":
    sys.exit(main())
