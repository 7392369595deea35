"""Measure calls and registrations a second, and what calls cost Asterisk: of ours, and of the distribution's.

Both have equal hosts with the same configuration, a thousand phones more than the lab has, and write the same call
records; one idles while the other is measured. The speed of a machine varies within minutes, so what a call costs is
measured by turns and compared in each round; the rates follow, first of ours. Each kind of call begins with a restarted
Asterisk, and so does each try after one that failed: an overload outlasts the calls that caused it. SIPp calls from
the controller, which shares the processor, and no media is sent. SIPp knows no TLS: socat encrypts what it sends. Each
call over TLS has a connection of its own, as each phone has: where calls overlap on one, Asterisk 16 and 18 send its
records out of order, and the other side closes it (https://github.com/asterisk/asterisk/issues/168).
"""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import bench_host
import bench_sipp
import yaml
from shell import log, run

import inventory
import lab

sys.path.insert(0, str(bench_host.ROOT / "collections"))

from ansible_collections.labredes.pbx.plugins.filter.cdr_journal import cdr_journal  # noqa: E402

CALLER, CALLEE = "6001", "6002"
PHONES = [str(number) for number in range(10000, 11000)]
AGENTS = PHONES[:200]  # each takes one call at a time
QUEUE, JOIN = "8001", "7001"
FAILED = 0.01
STEP = 1.25
STEP_SECONDS = 8
COMPARED_RATE = 20  # at which the cost of a call is compared
COMPARED_SECONDS = 5
ROUNDS = 7
KINDS = {"udp": CALLEE, "tls": CALLEE, "queue": QUEUE}
SWAP = """
set -eu
export DEBIAN_FRONTEND=noninteractive
systemctl stop asterisk
cp -a /etc/asterisk /var/tmp/asterisk
printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get update -qq
version=$(apt-cache madison asterisk | awk 'END { print $3 }')
apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold \
  $(printf "asterisk%s=$version " '' -config -modules -voicemail) > /dev/null
rm /usr/sbin/policy-rc.d
rm -rf /etc/asterisk
mv /var/tmp/asterisk /etc/asterisk
modules=$(dpkg -L asterisk-modules | grep '/chan_pjsip.so')
sed -i "s,^astmoddir.*,astmoddir => ${modules%/*},; s,^astdatadir.*,astdatadir => /usr/share/asterisk," \
  /etc/asterisk/asterisk.conf
sed -i "s/^fields = .*/values = $1/" /etc/asterisk/cdr_sqlite3_custom.conf
mkdir -p /etc/systemd/system/asterisk.service.d
printf '[Service]\\nExecStartPre=\\nExecStartPre=+install -d -o asterisk -g asterisk /var/spool/asterisk\\n' \
  > /etc/systemd/system/asterisk.service.d/bench.conf
systemctl daemon-reload
systemctl start asterisk
"""
RESTART = "systemctl restart asterisk; until asterisk -rx 'core waitfullybooted'; do sleep 0.2; done"
# Seconds of the processor, of the user and of the kernel; kilobytes of memory.
COST = """
read -r user system < <(awk '{ print $14, $15 }' "/proc/$(pidof asterisk)/stat")
awk -v ticks="$((user + system))" -v hertz="$(getconf CLK_TCK)" '/^VmRSS/ { print ticks / hertz, $2 }' \
  "/proc/$(pidof asterisk)/status"
"""


def measure(directory: pathlib.Path, suite: str) -> dict[str, Any]:
    """Measure on the lab host of `directory`, and on another one with the distribution's Asterisk."""
    with (
        bench_host.fresh(suite, name=f"{bench_host.NAME}-distribution") as other,
        tempfile.TemporaryDirectory(prefix="labredes-calls-") as temporary,
    ):
        ours = prepared(directory, pathlib.Path(temporary) / "ours", "--tags", "asterisk,pbx")
        theirs = prepared(other, pathlib.Path(temporary) / "theirs")
        log("installing the distribution's Asterisk in place of this one")
        run(["podman", "exec", theirs.name, "bash", "-c", SWAP, "swap", values()], timeout=300)
        figures: dict[str, Any] = {}
        for load, prefix in ((ours, ""), (theirs, "distribution_")):
            figures |= {f"{prefix}{name}": figure for name, figure in load.idle().items()}
        for kind in KINDS:
            for load in (ours, theirs):
                load.begin(kind)
            with ours.answered(kind):
                figures |= costs(kind, ours, theirs)
                rates = [load.calls_a_second(kind) for load in (ours, theirs)]
            name = f"calls_a_second_{kind}"
            figures |= {name: rates[0], f"distribution_{name}": rates[1], f"{name}_at_least": rates[1]}
        return figures


def prepared(directory: pathlib.Path, work: pathlib.Path, *arguments: str) -> Load:
    """The load of a lab host that gets a thousand phones, by a run of site.yml with these arguments."""
    phones = inventory.read(directory)[2]["pbx_phones"]
    more = [{"number": number, "name": f"Phone {number}", "mailbox": False} for number in PHONES]
    described = {
        "pbx_phones": phones + more,
        "pbx_queues": [{"name": "ColaUno", "number": QUEUE, "agents": [], "strategy": "rrmemory"}],
        # Otherwise the ports for media, four for a call, run out before the processor does.
        "labredes_rtp_end": 29999,
    }
    bench_host.site("a thousand phones", directory, *arguments, "-e", json.dumps(described))
    work.mkdir()
    return Load(directory, lab.describe(directory)["info"], work)


def costs(kind: str, ours: Load, theirs: Load) -> dict[str, Any]:
    """What a call costs both, by turns after a round that warms up; None where calls failed.

    Ours may cost no more, by the median of the ratios: within a round the speed of the machine hardly varies.
    """
    rounds = bench_host.in_turns(1 + ROUNDS, lambda: ours.milliseconds(kind), lambda: theirs.milliseconds(kind))
    our, their = (None if None in measured else measured[1:] for measured in rounds)
    ratios = our and their and [round(one / other, 3) for one, other in zip(our, their, strict=True)]
    name = f"milliseconds_a_call_{kind}"
    return {
        f"{name}_rounds": rounds,
        name: our and statistics.median(our),
        f"distribution_{name}": their and statistics.median(their),
        f"{name}_ratio": ratios and statistics.median(ratios),
        f"{name}_ratio_at_most": 1.0,
    }


def values() -> str:
    """What the distribution's release writes into the journal; it knows no fields."""
    defaults = yaml.safe_load((bench_host.ROOT / "roles/labredes/defaults/main/cdr_columns.yml").read_text())
    return ",".join(cdr_journal(defaults["labredes_cdr_columns"])["values"])


def most(what: str, rate: int, measured: Callable[[int], tuple[int, int]], restart: Callable[[], None]) -> int:
    """The highest rate a second, in steps of a quarter from `rate`, of which no more than 1 % fails.

    A rate is tried twice, since a machine that is busy for a moment fails one that it can take. Ends with a restart,
    after the rate that failed.
    """

    def holds() -> bool:
        count, lost = measured(rate)
        log(f"{what}: {rate} a second, {lost} of {count} failed")
        if lost > FAILED * count:
            restart()
        return lost <= FAILED * count

    passed = 0
    while True:
        if holds() or holds():
            passed, rate = rate, round(rate * STEP)
        elif passed or rate <= 1:
            return passed
        else:
            rate = round(rate / 2)


def rows(statistics: pathlib.Path) -> list[dict[str, str]]:
    """What SIPp has counted, a row for each second."""
    return list(csv.DictReader(statistics.read_text().splitlines(), delimiter=";"))


def begun_in(statistics: pathlib.Path, seconds: int) -> int:
    """The calls that SIPp has begun by the row of this second, of less than a minute."""
    return max(
        int(row["TotalCallCreated"]) for row in rows(statistics) if row["ElapsedTime(C)"] <= f"00:00:{seconds:02}"
    )


class Load:
    """SIPp against the Asterisk of a lab host."""

    def __init__(self, directory: pathlib.Path, info: dict[str, Any], work: pathlib.Path) -> None:
        self.info, self.work, self.answers = info, work, work.parent / "answers.csv"
        self.name, _, _ = inventory.read(directory)
        self.udp = bench_sipp.udp(info)
        passwords = directory / "secrets" / self.name
        self.failing: set[str] = set()
        login = "[authentication username={} password={}]"
        lines = [f"{n};{login.format(n, (passwords / f'phone_{n}').read_text().strip())}" for n in PHONES]
        (work / "phones.csv").write_text("\n".join(["SEQUENTIAL", *lines, ""]))
        # Of the phones in the file, not of one.
        for scenario in ("register", "dial"):
            text = (bench_sipp.SCENARIOS / f"{scenario}.xml").read_text().replace("[caller]", "[field0]")
            text = text.replace("[authentication]", "[field1]")
            text = text.replace("[service]", "[field0]") if scenario == "register" else text
            (work / f"{scenario}.xml").write_text(text)

    def cost(self) -> tuple[float, float]:
        """Seconds of the processor that Asterisk has used, and megabytes of its memory."""
        seconds, kilobytes = run(["podman", "exec", self.name, "bash", "-c", COST]).stdout.split()
        return float(seconds), round(int(kilobytes) / 1024, 1)

    def restart(self) -> None:
        """Restart Asterisk; the phones stay registered."""
        run(["podman", "exec", self.name, "bash", "-c", RESTART], timeout=60)

    def idle(self) -> dict[str, Any]:
        """What Asterisk takes up without calls, and the registrations it can take; leaves the phones registered."""
        self.restart()
        version = run(["podman", "exec", self.name, "asterisk", "-V"]).stdout.strip()
        figures: dict[str, Any] = {"version": version, "megabytes_idle": self.cost()[1]}
        self.register(len(PHONES), 100)
        figures["megabytes_1000_phones"] = self.cost()[1]
        rate = most(f"{self.name}, registrations", 2000, self.registrations, self.restart)
        return {**figures, "registrations_a_second": rate}

    def milliseconds(self, kind: str) -> float | None:
        """Milliseconds of the processor for a call, with all else that Asterisk does meanwhile.

        None if more than 1 % of the calls of this round or an earlier one failed, since these have a cost, too.
        """
        if kind in self.failing:
            return None
        before = self.cost()[0]
        count, lost = self.calls(kind, COMPARED_RATE, COMPARED_SECONDS)
        cost = round(1000 * (self.cost()[0] - before) / max(count - lost, 1), 1)
        log(f"{self.name}, cost, {kind}: {cost} ms, {lost} of {count} failed")
        if lost > FAILED * count:
            self.failing.add(kind)
            return None
        return cost

    def calls_a_second(self, kind: str) -> int:
        """The highest rate of calls."""
        return most(f"{self.name}, calls, {kind}", 80, functools.partial(self.calls, kind), self.restart)

    def sipp(self, target: list[str], scenario: pathlib.Path, port: str, *more: str) -> list[str]:
        """The command line of SIPp."""
        return bench_sipp.words(target, scenario, port, "-key", "display", "", "-key", "expires", "3600", *more)

    def counted(self, command: list[str], count: int, rate: int) -> tuple[int, int]:
        """Run SIPp with so many calls at a rate; how many they were, and how many failed or began over a second late.

        SIPp takes longer for them where the machine has no time left for it, or where too many are in progress.
        """
        statistics = self.work / "callers.csv"
        statistics.unlink(missing_ok=True)
        limit = count // rate + 20
        rates = ["-m", str(count), "-l", str(max(4 * rate, 100)), "-r", str(rate), "-timeout", f"{limit}s"]
        ends = ["-recv_timeout", "10000", "-trace_stat", "-stf", str(statistics), "-fd", "1"]
        run([*command, *rates, *ends], timeout=limit + 20, check=False)
        return count, count - min(self.successful(statistics), begun_in(statistics, count // rate + 1))

    def successful(self, statistics: pathlib.Path) -> int:
        """The calls that SIPp has had from their begin to their end."""
        return int(rows(statistics)[-1]["SuccessfulCall(C)"])

    def register(self, count: int, rate: int) -> tuple[int, int]:
        """Register the phones, one after the other."""
        file = ["-inf", str(self.work / "phones.csv")]
        return self.counted(self.sipp(self.udp, self.work / "register.xml", "phones", *file), count, rate)

    def registrations(self, rate: int) -> tuple[int, int]:
        """Registrations at a rate."""
        return self.register(rate * STEP_SECONDS, rate)

    def calls(self, kind: str, rate: int, seconds: int = STEP_SECONDS) -> tuple[int, int]:
        """Calls of a second at a rate; one has failed that either side has not had to its end."""
        before = self.successful(self.answers)
        words = [*bench_sipp.login(self.info, CALLER), "-s", KINDS[kind], "-key", "caller", CALLER, "-d", "1000"]
        with self.reached(kind) as target:
            command = self.sipp(target, bench_sipp.SCENARIOS / "uac.xml", CALLER, *words)
            count, lost = self.counted(command, rate * seconds, rate)
        time.sleep(2)  # SIPp writes its numbers every second
        return count, max(lost, count - (self.successful(self.answers) - before))

    def begin(self, kind: str) -> None:
        """Register the phone that answers; for the queue, let its agents join."""
        if kind == "queue":
            file = ["-inf", str(self.work / "phones.csv")]
            self.counted(self.sipp(self.udp, self.work / "register.xml", "agents", *file), len(AGENTS), 50)
            join = self.sipp(self.udp, self.work / "dial.xml", "agents", *file, "-s", JOIN)
            self.counted(join, len(AGENTS), 20)
        else:
            bench_sipp.register(self.info, CALLEE, 3600)

    @contextlib.contextmanager
    def answered(self, kind: str) -> Iterator[None]:
        """A phone that answers every call, or all agents of the queue, of either exchange.

        It is there all the time: an exchange rings no phone that does not answer its checks.
        """
        self.answers.unlink(missing_ok=True)
        port = "agents" if kind == "queue" else CALLEE
        words = ["-d", "0", "-trace_stat", "-stf", str(self.answers), "-fd", "1"]
        answer = self.sipp(self.udp, bench_sipp.SCENARIOS / "answer.xml", port, *words)
        with subprocess.Popen(
            answer, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as answering:
            try:
                time.sleep(2)
                yield
            finally:
                answering.kill()

    @contextlib.contextmanager
    def reached(self, kind: str) -> Iterator[list[str]]:
        """SIPp's words for the address of the exchange; over TLS through socat, with a connection for each call."""
        if kind != "tls":
            yield self.udp
            return
        near, far = "25069", f"{self.info['host']}:{self.info['sip']['tls']}"
        # Asterisk 22 does not answer the end of TLS, for which socat would wait unless it just closes the connection.
        relay = ["socat", f"TCP-LISTEN:{near},bind=127.0.0.1,fork,reuseaddr", f"OPENSSL:{far},verify=0,shut-none"]
        with subprocess.Popen(relay, stderr=subprocess.DEVNULL) as relaying:
            try:
                time.sleep(0.5)
                yield ["-t", "tn", "-max_socket", "1000", f"127.0.0.1:{near}"]
            finally:
                relaying.terminate()
