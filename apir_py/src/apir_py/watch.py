"""Asks the exchange for what its events do not say, and again every minute, in small pieces, for what was missed."""

from __future__ import annotations

import asyncio
import logging
from typing import Awaitable, Callable

from apir_py.ami import Connection, Lost
from apir_py.items import Item
from apir_py.state import Model

ROUND = 60.0
"""Seconds in which everything is asked for once."""
OUTSTANDING = 50
"""Questions about single phones or channels that wait for their answers."""
DELAY = 0.1
"""Seconds from an event to a question about the same thing: the exchange tells before it is done."""
WITHIN = 10.0
"""Seconds in which an answer has to come."""
MAILBOXES_EVERY = 5
"""Rounds between two counts of all messages, for which the exchange reads directories."""

log = logging.getLogger(__name__)


class Watch:
    """Keeps a model true over one connection after the other."""

    def __init__(self, model: Model) -> None:
        """See the class."""
        self.model, self.round_seconds = model, ROUND

    async def run(self, connection: Connection, on_ready: Callable[[], None]) -> None:
        """Ask for everything; `on_ready` is called once it is there. Then keep it up until the connection is lost."""
        self.free = asyncio.Semaphore(OUTSTANDING)
        asked = asyncio.Event()
        self.model.wants = asked.set
        tasks: list[asyncio.Future[None]] = []
        try:
            for number, piece in enumerate(self.pieces(connection)):
                await piece()
                if number == 0:
                    await self.details(connection)
            self.model.ready = True
            on_ready()
            tasks += [asyncio.ensure_future(self.rounds(connection))]
            tasks += [asyncio.ensure_future(self.follow_up(connection, asked))]
            await asyncio.gather(*tasks)
        except Lost:
            pass
        except Exception:  # a new connection begins anew
            log.exception("the state of the exchange cannot be followed")
            connection.end("the state of the exchange cannot be followed")
        finally:
            for task in tasks:
                task.cancel()

    def pieces(self, connection: Connection, mailboxes: bool = True) -> list[Callable[[], Awaitable[object]]]:
        """What a round consists of."""
        config, model = self.model.config, self.model

        async def channels() -> None:
            await connection.ask_list({"Action": "BridgeList"}, model.take_bridges, WITHIN)
            await connection.ask_list({"Action": "CoreShowChannels"}, model.take_channels, WITHIN)
            if model.lacking:
                await connection.ask_list({"Action": "CoreShowChannels"}, model.take_channels, WITHIN)

        def queue(name: str) -> Callable[[], Awaitable[object]]:
            action = {"Action": "QueueStatus", "Queue": name}
            return lambda: connection.ask_list(action, lambda rows: model.take_queue(name, rows), WITHIN)

        def conference(number: str) -> Callable[[], Awaitable[object]]:
            action = {"Action": "ConfbridgeList", "Conference": number}
            return lambda: connection.ask_list(action, lambda rows: model.take_conference(number, rows), WITHIN, True)

        def phones(numbers: list[str]) -> Callable[[], Awaitable[object]]:
            return lambda: asyncio.gather(*(self.contacts(connection, number) for number in numbers))

        listed = list(config.phones)
        found: list[Callable[[], Awaitable[object]]] = [channels]
        found += map(queue, config.queues)
        found += map(conference, config.conferences)
        # A phone takes up to four actions for each of its contacts.
        found += [phones(listed[start : start + 10]) for start in range(0, len(listed), 10)]
        if mailboxes and config.mailboxes:
            found.append(lambda: connection.ask_list({"Action": "VoicemailUsersList"}, model.take_mailboxes, WITHIN))
        return found

    async def rounds(self, connection: Connection) -> None:
        """Ask for everything again and again, with a pause after each piece."""
        number = 0
        while True:
            number += 1
            pieces = self.pieces(connection, number % MAILBOXES_EVERY == 0)
            for piece in pieces:
                await asyncio.sleep(self.round_seconds / len(pieces))
                await piece()

    async def follow_up(self, connection: Connection, asked: asyncio.Event) -> None:
        """Ask for what the model wants to know, as it comes up."""
        while True:
            await asked.wait()
            await asyncio.sleep(DELAY)
            asked.clear()
            await self.details(connection)

    async def details(self, connection: Connection) -> None:
        """Ask for contacts, codecs and dialled numbers that the model wants to know."""
        model = self.model
        questions: list[Awaitable[None]] = []
        for wanted, ask in (
            (model.wanted_extensions, self.extension),
            (model.wanted_codecs, self.codec),
            (model.wanted_contacts, self.contacts),
        ):
            while wanted:
                questions.append(ask(connection, wanted.pop()))
        await asyncio.gather(*questions)

    async def value(self, connection: Connection, variable: str, channel: str = "") -> str:
        """The value of a variable or function."""
        action = {"Action": "Getvar", "Variable": variable}
        if channel:
            action["Channel"] = channel
        async with self.free:
            answer = await connection.ask(action, WITHIN)
        value = answer.get("Value", "")
        return (value[0] if isinstance(value, list) else value) if answer.success else ""

    async def codec(self, connection: Connection, uid: str) -> None:
        """The codec of a channel."""
        channel = self.model.channels.get(uid)
        if channel:
            self.model.take_codec(uid, await self.value(connection, "CHANNEL(audionativeformat)", channel.name))

    async def extension(self, connection: Connection, uid: str) -> None:
        """What a channel has dialled."""
        channel = self.model.channels.get(uid)
        if channel:
            self.model.take_extension(uid, await self.value(connection, "CALLERID(dnid)", channel.name))

    async def contacts(self, connection: Connection, number: str) -> None:
        """The contacts of a phone."""
        listed = await self.value(connection, f"PJSIP_AOR({number},contact)")
        contacts: dict[str, Item] = {}
        for id in listed.split(",")[:10] if listed else []:
            status, rtt = await asyncio.gather(
                self.value(connection, f"PJSIP_CONTACT({id},status)"),
                self.value(connection, f"PJSIP_CONTACT({id},rtt)"),
            )
            uri, user_agent = await asyncio.gather(
                self.value(connection, f"PJSIP_CONTACT({id},uri)"),
                self.value(connection, f"PJSIP_CONTACT({id},user_agent)"),
            )
            if uri:
                contacts[id] = {"uri": uri, "status": status, "rtt": rtt, "user_agent": user_agent}
        if self.model.by_phone[number]:
            self.model.take_hold(number, await self.value(connection, f"DEVICE_STATE(PJSIP/{number})"))
        if number not in self.model.wanted_contacts:  # otherwise something has happened meanwhile
            self.model.take_contacts(number, contacts)
