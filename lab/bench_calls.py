"""Measure calls between two phones at a steady rate, and their records in PostgreSQL."""

from __future__ import annotations

import csv
import pathlib
import subprocess
import tempfile
import time
from typing import Any

import host
from shell import LabError, log, run

import inventory
import lab

SCENARIOS = pathlib.Path(__file__).resolve().parent.parent / "tests/sipp"
CALLS = 200
A_SECOND = 10
TALK_SECONDS = 10  # so that a hundred are up at once
CALLER, CALLEE = "6001", "6002"
PORTS = {CALLER: 25060, CALLEE: 25062}
RTP_PORT = 25064  # no media is sent or received: only call setup is measured


def measure(directory: pathlib.Path) -> dict[str, Any]:
    """Place the calls on the lab host of `directory`; returns the figures and their limits."""
    info = lab.describe(directory)["info"]
    _, address, _ = inventory.read(directory)
    begun = records(directory, info, 0)[2]
    log(f"{CALLS} calls, {A_SECOND} a second")
    with tempfile.TemporaryDirectory(prefix="labredes-calls-") as temporary:
        done, rate = call(info, pathlib.Path(temporary))
    end = time.monotonic() + 10
    while (found := records(directory, info, begun))[1] < CALLS and time.monotonic() < end:
        time.sleep(0.5)
    return {
        "calls": CALLS,
        "calls_a_second": rate,
        "calls_a_second_at_least": A_SECOND * 0.95,
        "calls_lost": CALLS - done,
        "calls_lost_at_most": 0,
        "records": found[0],
        "calls_without_their_one_record": abs(CALLS - found[1]) + found[0] - found[1],
        "calls_without_their_one_record_at_most": 0,
    }


def call(info: dict[str, Any], directory: pathlib.Path) -> tuple[int, float]:
    """Let one phone call the other; returns the number of complete calls, and of calls begun per second."""
    sipp(info, CALLEE, "register", "-key", "expires", "300", "-m", "1")
    limit = CALLS // A_SECOND + TALK_SECONDS + 30
    # SIPp also counts the exchange's OPTIONS requests as calls, so its limit is higher than the number of calls.
    answering = subprocess.Popen(
        command(info, CALLEE, "answer", "-m", str(2 * CALLS), "-d", "200", "-timeout", f"{limit}s"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        sipp(
            info,
            CALLER,
            "uac",
            "-key",
            "caller",
            CALLER,
            "-m",
            str(CALLS),
            "-l",
            str(CALLS),
            "-r",
            str(A_SECOND),
            "-d",
            str(TALK_SECONDS * 1000),
            "-timeout",
            f"{limit}s",
            "-timeout_error",
            "-recv_timeout",
            "10000",
            "-trace_stat",
            "-stf",
            str(directory / "statistics"),
            "-fd",
            "1",
            service=CALLEE,
            seconds=limit + 10,
            check=False,
        )
    finally:
        answering.kill()
        answering.wait()
        sipp(info, CALLEE, "register", "-key", "expires", "0", "-m", "1")
    rows = list(csv.DictReader((directory / "statistics").read_text().splitlines(), delimiter=";"))
    # The rows while calls were still being started; the last word of a time is seconds.
    begun, now = ([float(row[name].split()[-1]) for row in rows] for name in ("StartTime", "CurrentTime"))
    busy = [
        (int(row["TotalCallCreated"]), now[number] - begun[number])
        for number, row in enumerate(rows)
        if int(row["TotalCallCreated"]) < CALLS
    ]
    created, elapsed = busy[-1]
    return int(rows[-1]["SuccessfulCall(C)"]), round(created / max(elapsed, 1.0), 1)


def command(info: dict[str, Any], phone: str, scenario: str, *more: str, service: str = "") -> list[str]:
    """SIPp's command line for a phone of the lab."""
    return [
        "sipp",
        f"{info['host']}:{info['sip']['udp']}",
        "-sf",
        str(SCENARIOS / f"{scenario}.xml"),
        "-nostdin",
        "-aa",
        "-p",
        str(PORTS[phone]),
        "-s",
        service or phone,
        "-au",
        phone,
        "-ap",
        info["phones"][phone]["password"],
        "-key",
        "rtp_port",
        str(RTP_PORT),
        *more,
    ]


def sipp(
    info: dict[str, Any],
    phone: str,
    scenario: str,
    *more: str,
    service: str = "",
    seconds: float = 20,
    check: bool = True,
) -> None:
    """Run SIPp to its end."""
    run(command(info, phone, scenario, *more, service=service), timeout=seconds, check=check)


def records(directory: pathlib.Path, info: dict[str, Any], since: int) -> tuple[int, int, int]:
    """Of the answered calls recorded after row `since`: number of rows, number of calls, id of the last row."""
    _, address, _ = inventory.read(directory)
    login = host.ssh(address, host.port(address, directory), directory)
    query = (
        f"SELECT count(*), count(DISTINCT uniqueid), coalesce(max(id), 0) FROM cdr WHERE id > {since} AND "
        f"({since} = 0 OR (src, dst, disposition) = ('{CALLER}', '{CALLEE}', 'ANSWERED'))"
    )
    answer = run(
        [*login, f"cd / && sudo -n -u postgres psql --no-psqlrc -Atq -F' ' {info['database']['name']} -c \"{query}\""]
    )
    try:
        rows, calls, last = (int(number) for number in answer.stdout.split())
    except ValueError:
        raise LabError(f"the call records of {address} cannot be read: {answer.stdout} {answer.stderr}") from None
    return rows, calls, last
