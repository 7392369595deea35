"""A connection to AMI that lasts: it logs in, notices that the exchange is gone, and comes back.

Messages and actions are panoramisk's. What it lacks is here: whole letters, answers that are waited for, a failed
login that is said, an end of the connection that is noticed, and a back-off.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, List, NoReturn

from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.message import Message

from apir_py.event import Event, printable

GREETING = b"Asterisk Call Manager/"
END = b"\r\n\r\n"
LARGEST_MESSAGE = 1 << 20
"""Bytes of one message. The largest that Asterisk sends is near 64 KB; what has no end must not fill the memory."""

READ_EVERY, LOOK = 0.08, 0.001
"""Seconds between two looks at what has come, and for which each lasts. A call's events come in a burst: a program that
is woken by the first of them takes a processor from the exchange just while it sets that call up."""
READ_SOON, MUCH = 0.01, 1 << 16
"""Seconds between two looks while an answer is awaited, or where the last one found so many bytes: Asterisk ends a
connection to which it could write nothing for 100 ms."""

ANSWER = f"{Action.action_id_generator.prefix}/{Action.action_id_generator.uid}/"
"""What the ActionID of every action of this program begins with."""

log = logging.getLogger(__name__)
Take = Callable[[List[Message]], None]


class AmiError(Exception):
    """Why there is no exchange, in words for the user."""


class Unreachable(AmiError):
    """Nothing answers at the address, or something that is not AMI."""


class Untrusted(AmiError):
    """TLS failed: the certificate is not trusted, is another host's, or the port does not speak TLS."""


class Refused(AmiError):
    """The exchange refused username or secret."""


class Lost(AmiError):
    """A connection ended."""


@dataclass(frozen=True)
class Settings:
    """Where and how to log in. Times are in seconds.

    tls: None for plain TCP. tls_name: the name that the certificate has to carry, if it is not `host`.
    answer_within: longest wait for a connection, a greeting, or an answer to an action.
    ping_every: time between two pings; an exchange that is gone is noticed after ping_every + answer_within.
    first_delay, longest_delay: wait before the first attempt to reconnect; it doubles with each until the longest.
    """

    host: str
    port: int
    username: str
    secret: str = field(repr=False)
    tls: ssl.SSLContext | None = None
    tls_name: str | None = None
    answer_within: float = 10
    ping_every: float = 10
    first_delay: float = 1
    longest_delay: float = 30

    def __post_init__(self) -> None:
        """Refuse, with ValueError, what would end a line of AMI or is not text."""
        for name in ("username", "secret"):
            value = getattr(self, name)
            if not value:
                raise ValueError(f"the {name} is empty")
            if not value.isprintable():
                raise ValueError(f"the {name} has a character that is not printable")

    @property
    def address(self) -> str:
        """Host and port, to read: `pbx.example.com:5038`, `[2001:db8::1]:5038`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def tls_context(ca: str | None = None) -> ssl.SSLContext:
    """A context that trusts the system's authorities, or those of a PEM file alone (OSError, ssl.SSLError)."""
    return ssl.create_default_context(cafile=ca)


class Connection(AMIProtocol):
    """One TCP connection. `lost` holds the reason once it has ended, `greeting` what AMI said first."""

    # What AMIProtocol asks of its manager when it closes: actions to be sent again. None are.
    awaiting_actions: deque[Any] = deque()
    forgetable_actions: tuple[str, ...] = ()

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        """`on_event` is called with each event, in order, once `deliver` has been called; it must not wait."""
        loop = asyncio.get_running_loop()
        self.on_event = on_event
        self.held: list[Event] | None = []  # an event may come with the answer to the login, before its login is known
        self.takes: dict[str, tuple[Take, bool]] = {}
        self.greeting: asyncio.Future[str] = loop.create_future()
        self.lost: asyncio.Future[str] = loop.create_future()
        self.buffer = bytearray()
        self.searched = 0  # bytes of the buffer in which no message ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set AMIProtocol up."""
        super().connection_made(transport)
        self.log, self.encoding = log, "utf-8"

    def connection_lost(self, exc: Exception | None) -> None:
        """Take what has come, and keep the reason for those who wait."""
        self._take_messages()
        self.end(f"the connection broke: {exc}" if exc else "the exchange closed the connection")

    def end(self, reason: str) -> None:
        """Close at once, whether or not the other side reads."""
        if not self.lost.done():
            self.lost.set_result(reason)
        self.closed = True
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Keep what comes until the end of the look, or take it at once before the first one."""
        self.buffer += data
        if self.held is not None:
            self._take_messages()

    def _look(self) -> None:
        self.transport.resume_reading()
        asyncio.get_running_loop().call_later(LOOK, self._looked)

    def _looked(self) -> None:
        if not self.lost.done():
            self.transport.pause_reading()
            delay = READ_SOON if self.responses or len(self.buffer) > MUCH else READ_EVERY
            asyncio.get_running_loop().call_later(delay, self._look)
            self._take_messages()

    def _take_messages(self) -> None:
        """Take whole messages from what has come so far; only then are bytes letters."""
        if self.lost.done() or not self.greeting.done() and not self._take_greeting():
            return
        start = 0
        while (end := self.buffer.find(END, max(start, self.searched))) >= 0:
            text = self.buffer[start:end].decode("utf-8", "replace")
            start = end + len(END)
            self._take_message(text.strip("\r\n"))
        del self.buffer[:start]
        self.searched = max(0, len(self.buffer) - len(END))
        if len(self.buffer) > LARGEST_MESSAGE:
            self.end(f"a message without an end, of over {LARGEST_MESSAGE >> 10} KiB")

    def _take_greeting(self) -> bool:
        line, newline, rest = self.buffer.partition(b"\r\n")
        if not (line.startswith(GREETING) if newline else GREETING.startswith(line) or line.startswith(GREETING)):
            self.end("what answers there is not AMI")
        elif newline:
            self.greeting.set_result(line.decode("utf-8", "replace"))
            self.buffer = rest
        elif len(line) > 1024:
            self.end("what answers there is not AMI")
        return self.greeting.done()

    def _take_message(self, text: str) -> None:
        try:
            message = Message.from_line(text)
            if message is None:
                return
            action = self.responses.get(message.id)
            if "event" not in message or action:
                self.handle_message(message)
                if action and action.future.done() and message.id in self.takes:
                    self._take_list(action)
            elif not (message.id or "").startswith(ANSWER):  # the rest of a list that ended early is no event
                event = Event.of(message)
                if self.held is None:
                    self.on_event(event)
                else:
                    self.held.append(event)
        except Exception:  # one message that makes no sense must not end the connection
            log.exception("message ignored")

    def _take_list(self, action: Action) -> None:
        take, empty_if_refused = self.takes.pop(action.id)
        first, *rows = action.responses
        if rows or first.success or empty_if_refused:
            take(rows[:-1])
        else:
            log.warning("%s: %s", action["Action"], printable(first.message))

    def deliver(self) -> None:
        """Pass on the events that have come so far, and from now on those that each look finds."""
        held, self.held = self.held, None
        for event in held or ():
            self.on_event(event)
        self._looked()

    async def ask(self, action: dict[str, str], within: float) -> Message:
        """Send an action and wait for its response, `within` seconds at most; Lost if none comes."""
        return await self.wait_for(self.send(action), within, f"no answer to {action['Action']} within {within:g} s")

    async def ask_list(self, action: dict[str, str], take: Take, within: float, empty_if_refused: bool = False) -> None:
        """Send an action whose answer is a list and wait for its end, `within` seconds at most; Lost if it has none.

        `take` gets the rows at their place among the events: after those before the end of the list, before those that
        follow. It must not wait. A refused list is logged, or counts as empty.
        """
        asked = Action(action)
        self.takes[asked.id] = take, empty_if_refused
        answer = self.send(asked, as_list=None)  # panoramisk sees by the answer whether it is a list
        await self.wait_for(answer, within, f"no end of the answer to {action['Action']} within {within:g} s")

    async def wait_for(self, future: asyncio.Future[Any], within: float, reason: str) -> Any:
        """Wait for a result of this connection; Lost, with the reason, if none comes or the connection ends."""
        await asyncio.wait({future, self.lost}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        if not self.lost.done():
            self.end(reason)
        raise Lost(self.lost.result())


class Exchange:
    """An exchange that stays connected. Its callbacks are called in the loop and must not wait.

    on_event(event) for each event; on_connected(greeting) after each login; on_lost(error, delay) when a connection has
    ended, or an attempt has failed, `delay` seconds before the next one. `connection` is there between the two.
    """

    def __init__(
        self,
        settings: Settings,
        on_event: Callable[[Event], None],
        on_connected: Callable[[str], None],
        on_lost: Callable[[AmiError, float], None],
    ) -> None:
        """See the class."""
        self.settings = settings
        self.on_event, self.on_connected, self.on_lost = on_event, on_connected, on_lost
        self.connection: Connection | None = None

    async def run(self, may_retry: Callable[[AmiError], bool] = lambda error: True) -> NoReturn:
        """Connect, and connect again, until cancelled. An error for which `may_retry` is false is raised."""
        loop = asyncio.get_running_loop()
        delay = self.settings.first_delay
        while True:
            started = loop.time()
            try:
                await self._connection()
            except AmiError as error:
                if not may_retry(error):
                    raise
                # Only a connection that has lasted earns quick attempts, not one that dies at each login.
                if isinstance(error, Lost) and loop.time() - started > delay:
                    delay = self.settings.first_delay
                self.on_lost(error, delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, self.settings.longest_delay)

    async def _connection(self) -> NoReturn:
        """Connect, log in and stay, until the connection ends."""
        connection = await self._open()
        try:
            try:
                await self._login(connection)
            except Lost as error:
                raise Unreachable(str(error)) from error
            self.connection = connection
            self.on_connected(connection.greeting.result())
            connection.deliver()
            while True:
                await asyncio.wait({connection.lost}, timeout=self.settings.ping_every)
                await connection.ask({"Action": "Ping"}, self.settings.answer_within)
        finally:
            self.connection = None
            connection.end("closed here")

    async def _open(self) -> Connection:
        settings = self.settings
        try:
            _, connection = await asyncio.wait_for(
                asyncio.get_running_loop().create_connection(
                    lambda: Connection(self.on_event),
                    settings.host,
                    settings.port,
                    ssl=settings.tls,
                    server_hostname=(settings.tls_name or settings.host) if settings.tls else None,
                    happy_eyeballs_delay=0.25,
                ),
                settings.answer_within,
            )
        except asyncio.TimeoutError as error:
            raise Unreachable(f"no answer within {settings.answer_within:g} s") from error
        except ssl.CertificateError as error:
            raise Untrusted(f"its certificate is not trusted: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise Untrusted(f"TLS failed: {error.reason or error}") from error
        except OSError as error:
            # asyncio puts words of its own in place of the system's; a resolver's numbers are below zero
            number = error.errno or 0
            raise Unreachable(os.strerror(number) if number > 0 else error.strerror or str(error)) from error
        except UnicodeError as error:
            raise Unreachable("no host can have this name") from error
        return connection

    async def _login(self, connection: Connection) -> None:
        """Log in by challenge: the secret itself is never sent."""
        within = self.settings.answer_within
        hint = "" if self.settings.tls else " (a TLS port?)"
        await connection.wait_for(connection.greeting, within, f"no greeting of AMI within {within:g} s{hint}")
        challenge = await connection.ask({"Action": "Challenge", "AuthType": "MD5"}, within)
        key = hashlib.md5((challenge.challenge + self.settings.secret).encode()).hexdigest()
        login = {"Action": "Login", "AuthType": "MD5", "Username": self.settings.username, "Key": key, "Events": "on"}
        response = await connection.ask(login, within)
        if not response.success:
            raise Refused(response.message or "login refused")
