"""An AMI server in the same loop, which misbehaves where a test asks for it, and what tests do with it."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import Callable, Dict, List, Optional

from apir_py.ami import Exchange, Settings
from apir_py.event import Event

EOL = b"\r\n"
GREETING = b"Asterisk Call Manager/5.0.2\r\n"
Rows = Optional[List[Dict[str, str]]]


def message(headers: dict[str, str], **more: str) -> bytes:
    """A message of AMI."""
    return b"".join(f"{key}: {value}\r\n".encode() for key, value in {**headers, **more}.items()) + EOL


class FakeAmi:
    """AMI with one user, `monitor`, whose secret is `s3cret`. `async with FakeAmi() as ami` listens on a free port.

    rows: the lists that it gives, by action, or what makes them; None refuses it. values: what Getvar gives, by
    variable or channel and variable.
    """

    def __init__(self, greeting: bytes = GREETING, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        """The greeting is what it says first."""
        self.greeting, self.tls, self.port = greeting, tls, port
        self.answers_pings = True
        self.rows: dict[str, Rows | Callable[[], Rows]] = {}
        self.values: dict[str, str] = {}
        self.actions: list[dict[str, str]] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> FakeAmi:
        """Listen."""
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the port and every connection."""
        self.server.close()
        self.drop()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to a client until it goes."""
        writer.write(self.greeting)
        challenge = "842106357"
        try:
            while True:
                block = (await reader.readuntil(EOL + EOL)).decode()
                action = dict(line.split(": ", 1) for line in block.strip().split("\r\n"))
                self.actions.append(action)
                if action["Action"] == "Challenge":
                    self.answer(writer, action, Response="Success", Challenge=challenge)
                elif action["Action"] == "Login":
                    key = hashlib.md5(f"{challenge}s3cret".encode()).hexdigest()
                    if (action["Username"], action["Key"]) == ("monitor", key):
                        self.answer(writer, action, Response="Success", Message="Authentication accepted")
                        self.writers.append(writer)
                    else:  # and stays connected, silent
                        self.answer(writer, action, Response="Error", Message="Authentication failed")
                elif action["Action"] == "Ping" and self.answers_pings:
                    self.answer(writer, action, Response="Success", Ping="Pong", Timestamp="1764140400.000000")
                elif action["Action"] == "Getvar":
                    name = action["Variable"]
                    value = self.values.get(f"{action.get('Channel')} {name}", self.values.get(name, ""))
                    self.answer(writer, action, Response="Success", Variable=name, Value=value)
                elif action["Action"] != "Ping":
                    self.answer_list(writer, action)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @staticmethod
    def answer(writer: asyncio.StreamWriter, action: dict[str, str], **headers: str) -> None:
        """Answer an action."""
        writer.write(message(headers, ActionID=action["ActionID"]))

    def answer_list(self, writer: asyncio.StreamWriter, action: dict[str, str]) -> None:
        """Answer an action with a list; without rows it is empty."""
        rows = self.rows.get(action["Action"], [])
        rows = rows() if callable(rows) else rows
        if rows is None:
            self.answer(writer, action, Response="Error", Message="Permission denied")
            return
        filters = {key: action[key] for key in ("Queue", "Conference") if key in action}
        self.answer(writer, action, Response="Success", EventList="start", Message="It will follow")
        for row in rows:
            if filters.items() <= row.items():
                self.answer(writer, action, **row)
        self.answer(writer, action, Event=f"{action['Action']}Complete", EventList="Complete", ListItems="0")

    def send(self, data: bytes) -> None:
        """Send bytes to everybody who has logged in."""
        for writer in self.writers:
            writer.write(data)

    def event(self, name: str, **headers: str) -> None:
        """Send an event to everybody who has logged in."""
        self.send(message({"Event": name, "Privilege": "call,all"}, **headers))

    def drop(self) -> None:
        """Close the connections of everybody who has logged in."""
        for writer in self.writers:
            writer.close()
        self.writers.clear()


class Followed:
    """An exchange that is followed: what came of it, in order."""

    def __init__(self, ami: FakeAmi, **settings: object) -> None:
        """Settings are those of Settings; times are short."""
        known = {"host": "127.0.0.1", "port": ami.port, "username": "monitor", "secret": "s3cret", "first_delay": 0.02}
        self.events: list[Event] = []
        self.states: list[str] = []
        self.exchange = Exchange(
            Settings(**{**known, **settings}),  # type: ignore[arg-type]
            self.events.append,
            lambda greeting: self.states.append("connected"),
            lambda error, delay: self.states.append(f"{type(error).__name__}: {error}"),
        )

    async def __aenter__(self) -> Followed:
        """Start, and wait for the login."""
        self.task = asyncio.ensure_future(self.exchange.run())
        await until(lambda: self.states)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        self.task.cancel()
        await asyncio.wait({self.task})


async def until(condition: Callable[[], object], within: float = 5) -> None:
    """Wait until a condition holds, `within` seconds at most."""
    end = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it did not happen"
        await asyncio.sleep(0.005)
