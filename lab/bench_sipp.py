"""SIPp as the telephones of measurements and tests. No media is sent or received: only call setup is measured."""

from __future__ import annotations

import pathlib
from typing import Any

from shell import run

SCENARIOS = pathlib.Path(__file__).resolve().parent.parent / "tests/sipp"
# Local ports: of two phones of the lab, and of many at once.
PORTS = {"6001": 25060, "6002": 25062, "agents": 25064, "phones": 25066}
RTP_PORT = 25068


def words(target: list[str], scenario: pathlib.Path, port: str, *more: str) -> list[str]:
    """SIPp's command line for a scenario; target: its words for the address of the exchange, port: a key of PORTS."""
    fixed = ["-nostdin", "-aa", "-p", str(PORTS[port]), "-key", "rtp_port", str(RTP_PORT)]
    return ["sipp", *target, "-sf", str(scenario), *fixed, *more]


def udp(info: dict[str, Any]) -> list[str]:
    """SIPp's words for the exchange of `make lab-info`, over UDP."""
    return [f"{info['host']}:{info['sip']['udp']}"]


def login(info: dict[str, Any], phone: str) -> list[str]:
    """SIPp's words for the login of a phone of the lab."""
    return ["-au", phone, "-ap", info["phones"][phone]["password"]]


def command(info: dict[str, Any], phone: str, scenario: str, *more: str, service: str = "") -> list[str]:
    """SIPp's command line for a phone of the lab."""
    named = ["-s", service or phone, *login(info, phone)]
    return words(udp(info), SCENARIOS / f"{scenario}.xml", phone, *named, *more)


def register(info: dict[str, Any], phone: str, seconds: int) -> None:
    """Register a phone of the lab for so many seconds; 0 unregisters it."""
    run(command(info, phone, "register", "-key", "expires", str(seconds), "-m", "1"), timeout=20)
