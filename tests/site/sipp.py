"""Telephones by SIPp, a SIP implementation that is not ours, to check an exchange from outside.

Every run is bounded in time, leaves its files in a directory of its own that is removed, and needs
no privilege. SIPp does the signalling; RTP is sent and counted by the collection's own Stream,
whose frames tell whose they are (SIPp 3.6 counts only what it sends).
"""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.labredes.pbx.plugins.module_utils.rtp import Stream
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import wait
from media import Media
from prompts import Prompts

SCENARIOS = Path(__file__).resolve().parent.parent / "sipp"
STEP_SECONDS = 10  # for one SIPp step: a registration, setting up a call, hanging up


@dataclass(frozen=True)
class Account:
    """A phone's account at an exchange; host is the exchange's address, port its UDP port.

    relay: where SIPp sends to instead, over TCP; port is then the exchange's port behind it.
    """

    number: str
    password: str
    host: str
    port: int = 5060
    relay: tuple[str, int] | None = None


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
            _listening(answerer.process, *callee)
        # SIPp hangs up a little after the last frame, so that the last one can arrive.
        caller.start(
            account,
            free_port(account.host),
            "uac",
            number,
            "-key",
            "caller",
            account.number,
            "-d",
            str(int(seconds * 1000) + 600),
        )
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
        return _rtp_port(self.place)


class Line:
    """One call of a phone under test, led step by step: dial, hear, press keys, hang up or be hung up on.

    display: the name the caller gives itself, quotes and all, as bytes or text; talking: or silent at first; the stack ends the call at the latest.
    """

    def __init__(
        self,
        stack: ExitStack,
        account: Account,
        number: str,
        prompts: Prompts,
        display: bytes | str = b'""',
        talking: bool = True,
    ):
        self.account, self.prompts = account, prompts
        self.place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.media = Media(local_address(account.host))
        self.media.talking = talking
        stack.callback(self.media.close)
        self.call_id = secrets.token_hex(12)
        self.port = free_port(account.host)
        self.process = _start(
            [
                *_command(account, "dial", number, self.place, self.port, seconds=300),
                "-cid_str",
                self.call_id,
                "-key",
                "caller",
                account.number,
                "-key",
                "display",
                display,
                "-key",
                "rtp_port",
                str(self.media.port),
                "-trace_logs",
                "-log_file",
                str(self.place / "log"),
            ]
        )
        stack.callback(_end, self.process)
        stack.callback(self.hang_up)
        self.since = 0  # what was heard before this offset was asked about already

    def answered(self, seconds: float = STEP_SECONDS) -> bool:
        """Wait until the exchange answers. False if it refuses, or has not answered in so many seconds."""
        within(seconds, lambda: self.open() and self.code == 200 or self.over)
        return self.media.remote is not None and self.code == 200

    def open(self) -> bool:
        """Whether there is RTP, be the call answered or not; it begins with the first question."""
        port = None if self.media.remote else _rtp_port(self.place)
        if port:
            self.media.open(self.account.host, port)
        return self.media.remote is not None

    def hears(self, name: str, seconds: float = STEP_SECONDS, whole: bool = True) -> bool:
        """Wait until the prompt has been heard after the ones asked about before: all of it, or its beginning."""
        if whole:
            return self.hears_any(name, seconds=seconds) == name
        within(seconds, lambda: self.over or self.prompts[name].find(bytes(self.media.heard), self.since) >= 0)
        found = self.prompts[name].find(bytes(self.media.heard), self.since)
        if found >= 0:  # not to be found again by its second piece
            self.since = found + self.prompts[name].pieces[:2][-1][0] + 1
        return found >= 0

    def hears_any(self, *names: str, seconds: float = STEP_SECONDS) -> str | None:
        """Wait until one of these prompts has been heard to its end, and say which."""
        since = self.since
        deadline = time.monotonic() + seconds
        while True:
            over = self.over or time.monotonic() > deadline
            audio = bytes(self.media.heard)
            for name in names:
                if self.prompts[name].whole(audio, since):
                    end = self.prompts[name].find(audio, since) + self.prompts[name].samples
                    self.since = max(self.since, end - 400)
                    within(2, lambda: self.over or len(self.media.heard) >= end - 200)
                    return name
            if over:
                return None
            time.sleep(0.05)

    def heard(self) -> list[str]:
        """Every prompt of the exchange that has been heard so far."""
        return self.prompts.heard(bytes(self.media.heard))

    def hears_party(self, other: Media, seconds: float = STEP_SECONDS, frames: int = 25) -> bool:
        """Wait until so many more frames of another party have been heard than until now."""
        since = len(self.media.heard)
        return within(seconds, lambda: self.media.frames_of(other, since) >= frames)

    def sound(self, seconds: float) -> float:
        """Which part of the next seconds is not silence: 0 for no RTP at all or silent frames, up to 1."""
        since = len(self.media.heard)
        time.sleep(seconds)
        loud = sum(value & 0x7F < 0x70 for value in self.media.heard[since:])
        return loud / (8000 * seconds)

    def leaves_message(self) -> bool:
        """Pass over a mailbox's instructions, speak for a moment after the beep, and hang up; False if there was no beep."""
        self.media.press("#")
        beeped = self.hears("beep")
        self.media.talking = True
        kept = beeped and not within(2.5, lambda: self.over)
        self.hang_up()
        return kept

    @property
    def over(self) -> bool:
        """Whether the call has ended, on whichever side."""
        return self.process.poll() is not None

    def ended(self, seconds: float = STEP_SECONDS) -> bool:
        """Wait until the exchange has ended the call; False if it has not, or we had hung up."""
        within(seconds, lambda: self.over)
        return bool(re.search(r"^BYE ", _received(_read(self.place / "messages")), re.MULTILINE))

    def hang_up(self) -> None:
        """End the call, if it has not ended."""
        deadline = time.monotonic() + 3
        while not self.over and time.monotonic() < deadline:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as teller:
                here = local_address(self.account.host)
                teller.bind((here, 0))
                teller.sendto(
                    (
                        f"INFO sip:x@{here}:{self.port} SIP/2.0\r\nVia: SIP/2.0/UDP {here}:{teller.getsockname()[1]};branch=z9hG4bKx\r\n"
                        f"From: <sip:x@{here}>;tag=x\r\nTo: <sip:x@{here}>\r\nCall-ID: {self.call_id}\r\nCSeq: 1 INFO\r\n"
                        "Content-Length: 0\r\n\r\n"
                    ).encode(),
                    (here, self.port),
                )
            within(1, lambda: self.over)

    @property
    def code(self) -> int | None:
        """The final response to the call so far."""
        return self.outcome().code

    def outcome(self) -> Outcome:
        """What the call has come to so far."""
        codes = _codes(_read(self.place / "messages"), "INVITE")
        return Outcome(
            next((code for code in reversed(codes) if code >= 200), None),
            codes,
            self.process.poll(),
            _read(self.place / "errors")[-2000:],
        )

    def __repr__(self) -> str:
        """What a failed assertion shows."""
        return (
            f"<{self.account.number}'s call: {self.outcome()}, heard {len(self.media.heard) // 8000} s: {self.heard()}>"
        )


class Phone:
    """A registered phone that meets every call alike: the scenario answer, ring, busy or decline.

    seconds: how long it rings before it answers.
    """

    def __init__(self, stack: ExitStack, account: Account, scenario: str, seconds: float = 0.2):
        self.account = account
        self.place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.media = Media(local_address(account.host))
        stack.callback(self.media.close)
        self.port = free_port(account.host)
        self.registration = register(account, self.port)
        assert self.registration.code == 200, self.registration
        self.process = _start(
            [
                *_command(account, scenario, account.number, self.place, self.port, seconds=300, calls=1000),
                "-d",
                str(round(seconds * 1000)),
                "-key",
                "rtp_port",
                str(self.media.port),
                "-trace_logs",
                "-log_file",
                str(self.place / "log"),
            ]
        )
        stack.callback(self.leave)
        _listening(self.process, account, self.port)

    def leave(self) -> None:
        """End the registration, as a phone that is switched off properly."""
        _end(self.process)
        register(self.account, self.port, expires=0)

    @property
    def invited(self) -> int:
        """How many calls have come."""
        return len(set(re.findall(r"^INVITE .*?^Call-ID: (\S+)", self.trace(), re.MULTILINE | re.DOTALL)))

    def callers(self) -> list[str]:
        """The From of each call that came."""
        return re.findall(r"^INVITE .*?^From: ([^\n]*)", self.trace(), re.MULTILINE | re.DOTALL)

    def talks(self, seconds: float = STEP_SECONDS) -> bool:
        """Wait for a call, and begin to send RTP to it."""
        within(seconds, lambda: _rtp_port(self.place))
        if port := _rtp_port(self.place):
            self.media.open(self.account.host, port)
        return bool(port)

    def messages(self) -> list[tuple[bool, int]]:
        """Every message-waiting indication that came: (waiting, number of new messages)."""
        told = re.findall(
            r"^Messages-Waiting: (yes|no)(?:.*?^Voice-Message: (\d+)/)?", self.trace(), re.MULTILINE | re.DOTALL
        )
        return [(waiting == "yes", int(new or 0)) for waiting, new in told]

    def trace(self) -> str:
        """All that came from the exchange."""
        return _received(_read(self.place / "messages"))


def within(seconds: float, happens) -> bool:
    """Wait until happens() is true; False if it is not in so many seconds."""
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


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


def _command(
    account: Account,
    scenario: str,
    service: str,
    place: Path,
    local_port: int,
    seconds: int = 3 * STEP_SECONDS,
    calls: int = 1,
) -> list[str]:
    """The part of SIPp's command line that every scenario has."""
    local = local_address(account.host)
    return [
        "sipp",
        f"{account.host}:{account.port}",
        *_transport(account, scenario),
        "-sf",
        str(SCENARIOS / f"{scenario}.xml"),
        "-m",
        str(calls),
        "-nostdin",
        "-aa",  # answers OPTIONS, by which the exchange asks whether the phone is there
        "-i",
        local,
        "-p",
        str(local_port),
        "-s",
        service,
        "-au",
        account.number,
        "-ap",
        account.password,
        "-timeout",
        f"{seconds}s",
        "-timeout_error",
        "-recv_timeout",
        str(max(STEP_SECONDS, seconds // 3) * 1000),
        "-trace_msg",
        "-message_file",
        str(place / "messages"),
        "-trace_err",
        "-error_file",
        str(place / "errors"),
    ]


def _transport(account: Account, scenario: str) -> list[str]:
    """UDP, or TCP with the account's relay, which calls a SIPp that waits for calls."""
    if not account.relay:
        return []
    return ["-t", "t1", *([] if scenario == "uas" else ["-rsa", f"{account.relay[0]}:{account.relay[1]}"])]


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
    found = []
    for message in _messages(trace):
        status = re.match(r"SIP/2\.0 (\d{3})", message)
        if status and re.search(rf"^CSeq:\s*\d+ {method}$", message, re.MULTILINE | re.IGNORECASE):
            found.append(int(status.group(1)))
    return tuple(found)


def _messages(trace: str) -> list[str]:
    """The messages that a message trace says were received."""
    return re.findall(r"message received.*?\n\n(.*?)(?=\n-{20,}|\Z)", trace.replace("\r", ""), re.DOTALL)


def _received(trace: str) -> str:
    """The messages that a message trace says were received, as one text."""
    return "\n".join(_messages(trace))


def _rtp_port(place: Path) -> int | None:
    """The RTP port of the exchange in the last call of a SIPp, once it has logged it."""
    ports = re.findall(r"rtp (\d+)\s", _read(place / "log"))
    return int(ports[-1]) if ports else None


def _listening(process: subprocess.Popen, account: Account, port: int) -> None:
    """Return once SIPp has bound its port: a call before that would find nobody."""
    deadline = time.monotonic() + STEP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if account.relay else socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((local_address(account.host), port))
            except OSError:
                return
        time.sleep(0.02)
    raise RuntimeError(f"SIPp does not listen at port {port}")


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
