"""Telephones by SIPp, an independent SIP implementation, to test an exchange from outside.

Every run has a time limit, keeps its files in a temporary directory, and needs no privileges. SIPp does the
signalling. RTP is sent and counted by the collection's Stream, whose frames identify their sender, or by Media
(SIPp 3.6 counts only what it sends).
"""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.labredes.pbx.plugins.module_utils.rtp import Stream
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import wait
from media import Media
from prompts import Prompts

SCENARIOS = Path(__file__).resolve().parent.parent / "sipp"
STEP_SECONDS = 10  # limit for a registration, for setting up a call, and for hanging up


@dataclass(frozen=True)
class Account:
    """A phone's account at an exchange; host is the exchange's address, port its UDP port.

    relay: TCP address that SIPp connects to instead; port is then the exchange's port behind the relay.
    """

    number: str
    password: str
    host: str
    port: int = 5060
    relay: tuple[str, int] | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of one SIPp run.

    code: the last final SIP response to the scenario's own request, or None.
    codes: all responses to it, challenges included.
    exit: SIPp's exit status; 0 if the scenario was completed.
    text: the end of SIPp's error file, which a failed assertion shows.
    """

    code: int | None
    codes: tuple[int, ...]
    exit: int
    text: str


@dataclass(frozen=True)
class Talk:
    """A call, and its RTP in frames of 20 ms.

    caller, callee: the Outcome of each SIPp (callee None: no SIPp was to answer).
    sent: frames each party sent. caller_heard, callee_heard: frames received from the other party, without duplicates.
    """

    caller: Outcome
    callee: Outcome | None
    sent: int
    caller_heard: int
    callee_heard: int


def register(account: Account, local_port: int, expires: int = 120) -> Outcome:
    """Register an account with contact port local_port for `expires` seconds; 0 removes the registration.

    The exchange sends OPTIONS and NOTIFY to a new contact at once, and again until they are answered. SIPp stays to
    answer them: a SIPp that later waits at the port for one call would take them for it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        command = _command(account, "register", account.number, directory, local_port)
        command += ["-key", "expires", str(expires), "-d", "300" if expires else "0"]
        return _finish(_start(command), directory, "REGISTER", STEP_SECONDS)


def call(account: Account, number: str, seconds: float = 2.0, callee: tuple[Account, int] | None = None) -> Talk:
    """Call a number, send RTP for `seconds` if the call is answered, and hang up.

    callee: an account and the local port it is registered with, to answer the call and send RTP as well.
    """
    with ExitStack() as stack:
        caller = Leg(stack, account.host)
        answerer = Leg(stack, account.host) if callee else None
        if answerer:
            answerer.start(*callee, scenario="uas", service=callee[0].number)
            if not callee[0].relay:  # which waits by itself
                _listening(answerer.process, *callee)
        # SIPp hangs up a moment after the last frame, so that it can arrive.
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
        outcome = _finish(caller.process, caller.directory, "INVITE", STEP_SECONDS)
        if answerer and outcome.code != 200:
            answerer.process.kill()  # no call will come any more
        return Talk(
            outcome,
            _finish(answerer.process, answerer.directory, "INVITE", STEP_SECONDS) if answerer else None,
            caller.stream.sent,
            len(caller.stream.received),
            len(answerer.stream.received) if answerer else 0,
        )


class Leg:
    """One party of a call: a SIPp process, its directory and its RTP stream, all of which the stack cleans up."""

    def __init__(self, stack: ExitStack, host: str):
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.stream = Stream(local_address(host))
        stack.callback(self.stream.socket.close)
        self.stack = stack

    def start(self, account: Account, local_port: int, scenario: str, service: str, *more: str) -> None:
        """Run a scenario that offers the stream's port in its SDP and logs the port of the exchange."""
        command = _command(account, scenario, service, self.directory, local_port)
        command += ["-key", "rtp_port", str(self.stream.port), "-trace_logs", "-log_file", str(self.directory / "log")]
        self.process = _start([*command, *more])
        self.stack.callback(_end, self.process)

    def rtp_port(self) -> int | None:
        """The RTP port of the exchange, or None until SIPp has logged it."""
        return _rtp_port(self.directory)


class Line:
    """One outgoing call of a phone, controlled step by step: dial, hear, press keys, hang up.

    display: the display name in From, with its quotes; talking: whether it sends audio from the start. The stack ends
    the call at the latest.
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
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.media = Media(local_address(account.host))
        self.media.talking = talking
        stack.callback(self.media.close)
        self.call_id = secrets.token_hex(12)
        self.port = free_port(account.host)
        self.process = _start(
            [
                *_command(account, "dial", number, self.directory, self.port, seconds=300),
                "-cid_str",
                self.call_id,
                "-key",
                "caller",
                account.number,
                "-key",
                "display",
                display,
                *_media_options(self.media, self.directory),
            ]
        )
        stack.callback(_end, self.process)
        stack.callback(self.hang_up)
        self.since = 0  # offset in the received audio after which prompts are searched

    def answered(self, seconds: float = STEP_SECONDS) -> bool:
        """Wait until the exchange answers; False if it rejects the call or does not answer within `seconds`."""
        within(seconds, lambda: self.open() and self.code == 200 or self.over)
        return self.media.remote is not None and self.code == 200

    def open(self) -> bool:
        """Whether RTP is possible, before or after the answer; starts sending as soon as it is."""
        port = None if self.media.remote else _rtp_port(self.directory)
        if port:
            self.media.open(self.account.host, port)
        return self.media.remote is not None

    def hears(self, name: str, seconds: float = STEP_SECONDS, whole: bool = True) -> bool:
        """Wait until a prompt has been heard after the previous one, completely or (`whole` false) its start."""
        if whole:
            return self.hears_any(name, seconds=seconds) == name
        within(seconds, lambda: self.over or self.prompts[name].find(bytes(self.media.heard), self.since) >= 0)
        found = self.prompts[name].find(bytes(self.media.heard), self.since)
        if found >= 0:  # so that its second piece does not match again
            self.since = found + self.prompts[name].pieces[:2][-1][0] + 1
        return found >= 0

    def hears_any(self, *names: str, seconds: float = STEP_SECONDS) -> str | None:
        """Wait until one of these prompts has been heard to its end, and return its name."""
        since = self.since
        deadline = time.monotonic() + seconds
        while True:
            over = self.over or time.monotonic() > deadline
            audio = bytes(self.media.heard)
            for name in names:
                if self.prompts[name].whole(audio, since):
                    end = self.prompts[name].find(audio, since) + self.prompts[name].samples
                    self.since = max(self.since, end - 400)
                    within(2, lambda end=end: self.over or len(self.media.heard) >= end - 200)
                    return name
            if over:
                return None
            time.sleep(0.05)

    def heard(self) -> list[str]:
        """All prompts of the exchange that have been heard so far."""
        return self.prompts.heard(bytes(self.media.heard))

    def hears_party(self, other: Media, seconds: float = STEP_SECONDS, frames: int = 25) -> bool:
        """Wait until `frames` more frames of another party have been heard."""
        since = len(self.media.heard)
        return within(seconds, lambda: self.media.frames_of(other, since) >= frames)

    def audible(self, seconds: float) -> float:
        """The share of the next seconds that is not silence: 0 without RTP or with silent frames, up to 1."""
        since = len(self.media.heard)
        time.sleep(seconds)
        return self.media.loud(since) / (8000 * seconds)

    def leaves_message(self) -> bool:
        """Skip a mailbox's instructions, talk after the beep, and hang up; False if there was no beep."""
        self.media.press("#")
        beeped = self.hears("beep")
        self.media.talking = True
        kept = beeped and not within(2.5, lambda: self.over)
        self.hang_up()
        return kept

    @property
    def over(self) -> bool:
        """Whether the call has ended, from either side."""
        return self.process.poll() is not None

    def ended(self, seconds: float = STEP_SECONDS) -> bool:
        """Wait until the exchange has ended the call; False if it has not, or this side has hung up."""
        within(seconds, lambda: self.over)
        return bool(re.search(r"^BYE ", _received(_read(self.directory / "messages")), re.MULTILINE))

    def hang_up(self) -> None:
        """End the call if it is still up: the scenario hangs up when it receives an INFO."""
        deadline = time.monotonic() + 3
        while not self.over and time.monotonic() < deadline:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                here = local_address(self.account.host)
                control.bind((here, 0))
                lines = [
                    f"INFO sip:x@{here}:{self.port} SIP/2.0",
                    f"Via: SIP/2.0/UDP {here}:{control.getsockname()[1]};branch=z9hG4bKx",
                    f"From: <sip:x@{here}>;tag=x",
                    f"To: <sip:x@{here}>",
                    f"Call-ID: {self.call_id}",
                    "CSeq: 1 INFO",
                    "Content-Length: 0",
                ]
                control.sendto("".join(line + "\r\n" for line in [*lines, ""]).encode(), (here, self.port))
            within(1, lambda: self.over)

    @property
    def code(self) -> int | None:
        """The final response to the call so far."""
        return self.outcome().code

    def outcome(self) -> Outcome:
        """The result of the call so far."""
        codes = _codes(_read(self.directory / "messages"), "INVITE")
        return Outcome(
            next((code for code in reversed(codes) if code >= 200), None),
            codes,
            self.process.poll(),
            _read(self.directory / "errors")[-2000:],
        )

    def __repr__(self) -> str:
        """The text that a failed assertion shows."""
        return (
            f"<{self.account.number}'s call: {self.outcome()}, heard {len(self.media.heard) // 8000} s: {self.heard()}>"
        )


class Phone:
    """A registered phone that handles every call by one scenario: answer, ring, busy or decline.

    seconds: ringing time before it answers.
    """

    def __init__(self, stack: ExitStack, account: Account, scenario: str, seconds: float = 0.2):
        self.account = account
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.media = Media(local_address(account.host))
        stack.callback(self.media.close)
        self.port = free_port(account.host)
        self.registration = register(account, self.port)
        assert self.registration.code == 200, self.registration
        self.process = _start(
            [
                *_command(account, scenario, account.number, self.directory, self.port, seconds=300, calls=1000),
                "-d",
                str(round(seconds * 1000)),
                *_media_options(self.media, self.directory),
            ]
        )
        stack.callback(self.leave)
        _listening(self.process, account, self.port)

    def leave(self) -> None:
        """Unregister, like a phone that is switched off."""
        _end(self.process)
        register(self.account, self.port, expires=0)

    @property
    def invited(self) -> int:
        """The number of calls received."""
        return len(set(re.findall(r"^INVITE .*?^Call-ID: (\S+)", self.trace(), re.MULTILINE | re.DOTALL)))

    def callers(self) -> list[str]:
        """The From header of each call received."""
        return re.findall(r"^INVITE .*?^From: ([^\n]*)", self.trace(), re.MULTILINE | re.DOTALL)

    def talks(self, seconds: float = STEP_SECONDS) -> bool:
        """Wait for a call and start sending RTP in it."""
        within(seconds, lambda: _rtp_port(self.directory))
        if port := _rtp_port(self.directory):
            self.media.open(self.account.host, port)
        return bool(port)

    def messages(self) -> list[tuple[bool, int]]:
        """All message-waiting indications received: (waiting, number of new messages)."""
        found = re.findall(
            r"^Messages-Waiting: (yes|no)(?:.*?^Voice-Message: (\d+)/)?", self.trace(), re.MULTILINE | re.DOTALL
        )
        return [(waiting == "yes", int(new or 0)) for waiting, new in found]

    def trace(self) -> str:
        """All messages received from the exchange."""
        return _received(_read(self.directory / "messages"))


def within(seconds: float, condition: Callable[[], object]) -> bool:
    """Wait until condition() is true; False if it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _talk(host: str, caller: Leg, answerer: Leg | None, frames: int) -> None:
    """Serve the streams, which start when the call is answered, until the caller's SIPp has ended it."""
    legs = [leg for leg in (caller, answerer) if leg]
    others = {caller: answerer, answerer: caller}
    deadline = time.monotonic() + 2 * STEP_SECONDS + frames / 50
    while caller.process.poll() is None and time.monotonic() < deadline:
        if not caller.stream.started and all(leg.rtp_port() for leg in legs):
            for leg in legs:
                other = others[leg]
                leg.stream.start((host, leg.rtp_port()), frames, other.stream.mark if other else b"")
        wait([leg.stream for leg in legs], lambda: False, 0.02)


def local_address(host: str) -> str:
    """This machine's address on the route to host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return probe.getsockname()[0]


def free_port(host: str) -> int:
    """A free UDP port at this machine's address on the route to host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((local_address(host), 0))
        return probe.getsockname()[1]


def _command(
    account: Account,
    scenario: str,
    service: str,
    directory: Path,
    local_port: int,
    seconds: int = 3 * STEP_SECONDS,
    calls: int = 1,
) -> list[str]:
    """The part of SIPp's command line that all scenarios share."""
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
        "-aa",  # answers the OPTIONS by which the exchange qualifies a phone
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
        str(directory / "messages"),
        "-trace_err",
        "-error_file",
        str(directory / "errors"),
    ]


def _transport(account: Account, scenario: str) -> list[str]:
    """UDP, or TCP to the account's relay; a SIPp that waits for calls is called by the relay."""
    if not account.relay:
        return []
    return ["-t", "t1", *([] if scenario == "uas" else ["-rsa", f"{account.relay[0]}:{account.relay[1]}"])]


def _media_options(media: Media, directory: Path) -> list[str]:
    """SIPp's options for the port of the audio, and for its log in a directory."""
    return ["-key", "rtp_port", str(media.port), "-trace_logs", "-log_file", str(directory / "log")]


def _start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def _finish(process: subprocess.Popen, directory: Path, method: str, seconds: float) -> Outcome:
    """Wait until SIPp ends, kill it if it does not, and read its traces."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        _end(process)
    codes = _codes(_read(directory / "messages"), method)
    final = [code for code in codes if code >= 200]
    return Outcome(final[-1] if final else None, codes, process.returncode, _read(directory / "errors")[-2000:])


def _codes(trace: str, method: str) -> tuple[int, ...]:
    """The status codes of the responses to method that were received, from a message trace."""
    found = []
    for message in _messages(trace):
        status = re.match(r"SIP/2\.0 (\d{3})", message)
        if status and re.search(rf"^CSeq:\s*\d+ {method}$", message, re.MULTILINE | re.IGNORECASE):
            found.append(int(status.group(1)))
    return tuple(found)


def _messages(trace: str) -> list[str]:
    """The messages that were received, from a message trace."""
    return re.findall(r"message received.*?\n\n(.*?)(?=\n-{20,}|\Z)", trace.replace("\r", ""), re.DOTALL)


def _received(trace: str) -> str:
    """The messages that were received, from a message trace, as one text."""
    return "\n".join(_messages(trace))


def _rtp_port(directory: Path) -> int | None:
    """The RTP port of the exchange in the last call of a SIPp, or None until it is logged."""
    ports = re.findall(r"rtp (\d+)\s", _read(directory / "log"))
    return int(ports[-1]) if ports else None


def _listening(process: subprocess.Popen, account: Account, port: int) -> None:
    """Wait until SIPp has bound its port, so that a call finds it."""
    deadline = time.monotonic() + STEP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((local_address(account.host), port))
            except OSError:
                return
        time.sleep(0.02)
    raise RuntimeError(f"SIPp does not listen on port {port}")


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
