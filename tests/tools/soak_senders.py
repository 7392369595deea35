#!/usr/bin/env python3
"""A day of honest senders in some minutes, then a minute of wrong passwords: `make soak-senders`.

From one address in no administrator's network, over UDP, TCP, TLS and WSS: phones that register, again and with an old
nonce, OPTIONS and SUBSCRIBE without a login, a provider's INVITE, malformed datagrams and keep-alive messages, a wrong
password twice, and baresip and SIPp as phones. None of it may ban or slow down the address. Prints a JSON object with
the figures and their limits; exits with code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / path) for path in ("collections", "lab", "tests/site")]

from lab_host import LabHost  # noqa: E402
from outside_host import OutsideHost, within_network  # noqa: E402
from sipp import Account  # noqa: E402
from softphone import Softphone  # noqa: E402

JAILS = ("labredes-asterisk", "labredes-asterisk-udp", "labredes-sshd")
LOG = "/var/log/asterisk/security"
PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061, "wss": 8089}
# What is sent in each round, and what is answered.
ROUND = {"options": (6, "401"), "subscribe": (2, "401"), "invite": (2, "401"), "stale": (2, "200")}


def main() -> int:
    """Send, count and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=ROOT / ".lab", help="directory of the lab")
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    directory = options.dir.resolve()
    lab = LabHost(directory)
    address, on_lab = lab.address, lab.run

    def secret_of(number: str) -> str:
        return next((directory / "secrets").rglob(f"phone_{number}")).read_text().strip()

    password = secret_of("6001")
    on_lab("fail2ban-client unban --all; systemctl restart fail2ban")  # which forgets earlier failures
    rounds, registrations, wrong = 0, 0, []
    with OutsideHost(directory) as outside:

        def sends(what: str, number: int) -> list[str]:
            arguments = (address, PORTS["udp"], "6001", password, what, number)
            return outside.python("senders.py", *arguments, seconds=150).split()

        def registers(transport: str, secret: str, times: int) -> list[str]:
            return outside.python("attacker.py", transport, address, PORTS[transport], "6001", secret, times).split()

        def baresip_calls(transport: str, encryption: str) -> bool:
            """Register with baresip, call the conference and hear its announcement."""
            with ExitStack() as stack:
                phone = Softphone(
                    stack,
                    Account("6002", secret_of("6002"), address, PORTS[transport]),
                    transport,
                    encryption=encryption,
                    dial="6000",
                    namespace=outside.process,
                )
                return phone.registered() and phone.hears_sound()

        def sipp_registers() -> bool:
            command = [*within_network(outside.process), "sipp", f"{address}:{PORTS['udp']}", "-i", outside.address]
            command += ["-sf", ROOT / "tests/sipp/register.xml", "-m", "1", "-nostdin", "-timeout", "10s"]
            command += ["-s", "6003", "-au", "6003", "-ap", secret_of("6003"), "-key", "expires", "60"]
            return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0

        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            for what, (number, code) in ROUND.items():
                got = sends(what, number)
                wrong += [(what, got)] if got != [code] * number else []
            sends("garbage", 2)
            got = sends("office", 10)
            wrong += [("office", got)] if got[1:] != ["10"] else []
            for transport in ("udp", "tcp") if rounds == 0 else ():
                registers(transport, "wrong", 2)
            for transport in ("tcp", "tls", "wss"):
                got = registers(transport, password, 3)
                wrong += [(transport, got)] if got != ["200"] * 3 else []
                registrations += len(got)
            for transport, encryption in (("udp", ""), ("tcp", ""), ("tls", "srtp-mand")):
                wrong += [] if baresip_calls(transport, encryption) else [("baresip", transport)]
            wrong += [] if sipp_registers() else [("sipp", "register")]
            rounds, registrations = rounds + 1, registrations + 12
        bans = {jail: on_lab(f"fail2ban-client get {jail} banip").split() for jail in JAILS}
    # From another address, where no phone has proved a password.
    with OutsideHost(directory) as outside:
        begun = int(on_lab(f"wc -l <{LOG}"))
        arguments = (address, PORTS["udp"], "6001", "wrong", "attack", 60)
        outside.python("senders.py", *arguments, seconds=150)
        failed = (
            f"tail -n +{begun + 1} {LOG} | grep -F ChallengeResponseFailed | grep -cF '/{outside.address}/' || true"
        )
        attempts = int(on_lab(failed))
        on_lab("fail2ban-client unban --all")
    figures = {"rounds": rounds, "registrations": registrations, "other_answers": wrong, "other_answers_at_most": 0,
               "bans": bans, "bans_at_most": 0, "attempts_in_a_minute": attempts, "attempts_at_most": 60}  # fmt: skip
    print(json.dumps(figures))
    return int(bool(wrong) or any(bans.values()) or not 5 <= attempts <= 60)


if __name__ == "__main__":
    sys.exit(main())
