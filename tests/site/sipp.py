"""Telephones by SIPp, a SIP implementation that is not ours, to check an exchange from outside.

Every run is bounded in time, leaves its files in a directory of its own that is removed, and needs
no privilege. SIPp does the signalling; RTP is sent and counted by the collection's own Stream,
whose frames tell whose they are (SIPp 3.6 counts only what it sends).
"""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.labredes.pbx.plugins.module_utils.rtp import Stream
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import wait

SCENARIOS = Path(__file__).resolve().parent.parent / "sipp"
STEP_SECONDS = 10  # for one SIPp step: a registration, setting up a call, hanging up


@dataclass(frozen=True)
class Account:
    """A phone's account at an exchange; host is the exchange's address, port its UDP port."""

    number: str
    password: str
    host: str
    port: int = 5060


@dataclass(frozen=True)
class Outcome:
    """What one SIPp run came to.

    code: the last final SIP response to the scenario's own request (None: there was none).
    codes: every response to it, challenges included.
    exit: SIPp's exit status; 0 if the scenario was completed to its end.
    text: the last lines SIPp wrote about errors, for a failed assertion to show.
    """

    code: int | None
    codes: tuple[int, ...]
    exit: int
    text: str


@dataclass(frozen=True)
class Talk:
    """A call, and its RTP in frames of 20 ms.

    caller, callee: the Outcome of each SIPp (callee None: nobody of ours was to answer).
    sent: frames each party sent. caller_heard, callee_heard: frames of the other party, each counted once.
    prompt: packets the caller received that neither party sent, such as an announcement.
    """

    caller: Outcome
    callee: Outcome | None
    sent: int
    caller_heard: int
    callee_heard: int
    prompt: int


def register(account: Account, local_port: int, expires: int = 120) -> Outcome:
    """Register an account at this machine's local_port for expires seconds; 0 ends the registration."""
    with tempfile.TemporaryDirectory() as place:
        command = _command(account, "register", account.number, Path(place), local_port)
        return _finish(_start([*command, "-key", "expires", str(expires)]), Path(place), "REGISTER", STEP_SECONDS)


def call(account: Account, number: str, seconds: float = 2.0, callee: tuple[Account, int] | None = None) -> Talk:
    """Call number as account, send RTP for so many seconds if it is answered, and hang up.

    callee: an account and the local port it was registered at, to answer the call there and send RTP too.
    """
    with ExitStack() as stack:
        caller = Leg(stack, account.host)
        answerer = Leg(stack, account.host) if callee else None
        if answerer:
            answerer.start(*callee, scenario="uas", service=callee[0].number)
            _listening(answerer.process, account.host, callee[1])
        # SIPp hangs up a little after the last frame, so that the last one can arrive.
        caller.start(account, free_port(account.host), "uac", number,
                     "-key", "caller", account.number, "-d", str(int(seconds * 1000) + 600))
        _talk(account.host, caller, answerer, int(seconds * 50))
        outcome = _finish(caller.process, caller.place, "INVITE", STEP_SECONDS)
        if answerer and outcome.code != 200:
            answerer.process.kill()  # nobody will call it any more
        return Talk(
            outcome,
            _finish(answerer.process, answerer.place, "INVITE", STEP_SECONDS) if answerer else None,
            caller.stream.sent,
            len(caller.stream.received),
            len(answerer.stream.received) if answerer else 0,
            caller.stream.strangers,
        )


class Leg:
    """One party of a call: a SIPp process, its directory and its RTP stream; the stack ends and removes all three."""

    def __init__(self, stack: ExitStack, host: str):
        self.place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.stream = Stream(local_address(host))
        stack.callback(self.stream.close)
        self.stack = stack

    def start(self, account: Account, local_port: int, scenario: str, service: str, *more: str) -> None:
        """Run a scenario that names our stream's port in its SDP and logs the exchange's."""
        command = _command(account, scenario, service, self.place, local_port)
        command += ["-key", "rtp_port", str(self.stream.port), "-trace_logs", "-log_file", str(self.place / "log")]
        self.process = _start([*command, *more])
        self.stack.callback(_end, self.process)

    def rtp_port(self) -> int | None:
        """The RTP port of the exchange, once SIPp has logged it."""
        match = re.search(r"rtp (\d+)\s", _read(self.place / "log"))
        return int(match.group(1)) if match else None


def _talk(host: str, caller: Leg, answerer: Leg | None, frames: int) -> None:
    """Drive the streams until the caller's SIPp has ended the call; they start when the caller's call is answered."""
    legs = [leg for leg in (caller, answerer) if leg]
    others = {caller: answerer, answerer: caller}
    deadline = time.monotonic() + 2 * STEP_SECONDS + frames / 50
    while caller.process.poll() is None and time.monotonic() < deadline:
        if caller.stream.started is None and all(leg.rtp_port() for leg in legs):
            for leg in legs:
                other = others[leg]
                leg.stream.start((host, leg.rtp_port()), frames, other.stream.mark if other else b"")
        wait([leg.stream for leg in legs], lambda: False, time.monotonic() + 0.02)


def local_address(host: str) -> str:
    """The address this machine has towards host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return probe.getsockname()[0]


def free_port(host: str) -> int:
    """A free UDP port of this machine towards host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((local_address(host), 0))
        return probe.getsockname()[1]


def _command(account: Account, scenario: str, service: str, place: Path, local_port: int) -> list[str]:
    """The part of SIPp's command line that every scenario has."""
    local = local_address(account.host)
    return [
        "sipp", f"{account.host}:{account.port}", "-sf", str(SCENARIOS / f"{scenario}.xml"), "-m", "1", "-nostdin",
        "-aa",  # answers OPTIONS, by which the exchange asks whether the phone is there
        "-i", local, "-p", str(local_port), "-s", service, "-au", account.number, "-ap", account.password,
        "-timeout", f"{3 * STEP_SECONDS}s", "-timeout_error", "-recv_timeout", str(STEP_SECONDS * 1000),
        "-trace_msg", "-message_file", str(place / "messages"), "-trace_err", "-error_file", str(place / "errors"),
    ]


def _start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def _finish(process: subprocess.Popen, place: Path, method: str, seconds: float) -> Outcome:
    """Wait for SIPp to end, kill it if it does not, and read its traces."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        _end(process)
    codes = _codes(_read(place / "messages"), method)
    final = [code for code in codes if code >= 200]
    return Outcome(final[-1] if final else None, codes, process.returncode, _read(place / "errors")[-2000:])


def _codes(trace: str, method: str) -> tuple[int, ...]:
    """The status codes of the responses to method that a message trace says were received."""
    received = re.findall(r"message received.*?\n\n(.*?)(?=\n-{20,}|\Z)", trace.replace("\r", ""), re.DOTALL)
    found = []
    for message in received:
        status = re.match(r"SIP/2\.0 (\d{3})", message)
        if status and re.search(rf"^CSeq:\s*\d+ {method}$", message, re.MULTILINE | re.IGNORECASE):
            found.append(int(status.group(1)))
    return tuple(found)


def _listening(process: subprocess.Popen, host: str, port: int) -> None:
    """Return once SIPp has bound its port: a call before that would find nobody."""
    deadline = time.monotonic() + STEP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((local_address(host), port))
            except OSError:
                return
        time.sleep(0.02)
    raise RuntimeError(f"SIPp does not listen at UDP port {port}")


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
