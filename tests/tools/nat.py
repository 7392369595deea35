#!/usr/bin/env python3
"""Places calls through a router with port forwards to the host of `make lab`: `make nat`.

The phones are outside, the exchange has a private address alone. Over each transport every call has to carry sound
both ways; without labredes_external_address none may carry any, which shows that the test can fail. Prints a JSON
object with the figures and their limits; exits with code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "tests/site")]

import playbook  # noqa: E402
from lab_host import LabHost  # noqa: E402
from nat import OUTSIDE, Nat  # noqa: E402

ENOUGH = 0.9  # of the RTP frames


def main() -> int:
    """Place as many calls as the command line says, with the setting and without it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=ROOT / ".lab", help="directory of the lab")
    parser.add_argument("--calls", type=int, default=100, help="over each transport")
    options = parser.parse_args()
    directory = options.dir.resolve()
    info = [sys.executable, ROOT / "lab/lab.py", "info", "--dir", directory]
    lab = json.loads(subprocess.run(info, capture_output=True, text=True, check=True).stdout)
    exchange = playbook.Exchange(directory)
    exchange.apply()
    with Nat(directory, lab, LabHost(directory).run) as nat:

        def place(transport: str, count: int) -> list[dict]:
            ends = [
                {"user": user, "transport": transport, "server": [OUTSIDE, lab["sip"][transport]]}
                for user in ("6001", "6002")
            ]
            return nat.calls(ends, 0.5, count)

        calls = {transport: place(transport, options.calls) for transport in ("udp", "tcp", "tls")}
        exchange.apply(labredes_external_address="")
        without = [call for transport in calls for call in place(transport, 1)]
        exchange.apply()
    deaf = {
        transport: [call for call in made if min(call.get("heard", [0])) < ENOUGH * call.get("sent", 1)]
        for transport, made in calls.items()
    }
    silent = sum(call["status"] == 200 and call["heard"] == [0, 0] for call in without)
    heard = {transport: options.calls - len(failed) for transport, failed in deaf.items()}
    print(json.dumps({"calls": options.calls, "heard_both_ways": heard, "heard_at_least": options.calls,
                      "silent_without_the_setting": silent, "silent_at_least": 3, "failed": sum(deaf.values(), []),
                      "without_the_setting": without}))  # fmt: skip
    return int(min(heard.values()) < options.calls or silent < 3)


if __name__ == "__main__":
    sys.exit(main())
