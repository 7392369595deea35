"""SIP of a browser's phone, on its way to the WebSocket of Asterisk's own HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Union

import aiohttp
from aiohttp import ClientWebSocketResponse, WebSocketError, WSCloseCode, WSMsgType, web

PROTOCOL = "sip"
LARGEST_MESSAGE = 1 << 16
"""Bytes of a SIP message, of which Asterisk takes no larger ones either."""
CONNECT_WITHIN = 5
"""Seconds in which Asterisk has to answer."""
HEARTBEAT = 20
"""Seconds between two pings to the browser, and to Asterisk; the answer has half that time."""
CLOSE_WITHIN = 2
"""Seconds in which Asterisk has to answer the end of its WebSocket."""

NOT_THERE = "the exchange is not there; it is tried again"
GONE = "the exchange has closed the connection; it is tried again"

Socket = Union[web.WebSocketResponse, ClientWebSocketResponse]

log = logging.getLogger(__name__)


class Phone:
    """A browser's WebSocket for SIP. `ended` gets a close code and a reason once it is to end."""

    def __init__(self, user: str) -> None:
        """Nothing is connected yet."""
        self.user = user
        self.ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def end(self, code: int, reason: str) -> None:
        """Ask for the end of the connection; the reason has at most 123 bytes."""
        if not self.ended.done():
            self.ended.set_result((code, reason))


class SipProxy:
    """Connects browsers' phones to Asterisk. `phones` are those that are open."""

    def __init__(self, url: str) -> None:
        """`url` is Asterisk's WebSocket; nothing is opened yet."""
        self.url = url
        self.phones: set[Phone] = set()
        self.client: aiohttp.ClientSession | None = None

    async def connect(self) -> ClientWebSocketResponse | None:
        """A WebSocket to Asterisk, or None if it is not there."""
        if not self.client:
            # No limit of connections: who may open one has been decided before.
            self.client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        try:
            connecting = self.client.ws_connect(
                self.url, protocols=(PROTOCOL,), max_msg_size=LARGEST_MESSAGE, heartbeat=HEARTBEAT
            )
            socket = await asyncio.wait_for(connecting, CONNECT_WITHIN)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            log.warning("%s: %s", self.url, str(error) or f"no answer within {CONNECT_WITHIN} s")
            return None
        if socket.protocol == PROTOCOL:
            return socket
        log.warning("%s: speaks no SIP", self.url)
        await socket.close()
        return None

    async def carry(self, browser: web.WebSocketResponse, phone: Phone) -> tuple[int, str]:
        """Copy messages both ways until one side, or the service, ends; gives close code and reason for the browser."""
        self.phones.add(phone)
        asterisk: ClientWebSocketResponse | None = None
        tasks: list[asyncio.Future[tuple[int, str]]] = [phone.ended]
        try:
            asterisk = await self.connect()
            if not asterisk:
                return WSCloseCode.TRY_AGAIN_LATER, NOT_THERE
            loop = asyncio.get_running_loop()
            tasks.append(loop.create_task(copy(browser, asterisk, (WSCloseCode.OK, ""))))
            tasks.append(loop.create_task(copy(asterisk, browser, (WSCloseCode.TRY_AGAIN_LATER, GONE))))
            tasks.append(loop.create_task(silence(browser)))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # If several have ended, the service's own reason comes first.
            return next(task for task in tasks if task in done).result()
        finally:
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks[1:], return_exceptions=True)
            if asterisk:
                with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
                    await asyncio.wait_for(asterisk.close(), CLOSE_WITHIN)
            self.phones.discard(phone)

    async def close(self) -> None:
        """End what is left of the connections to Asterisk."""
        if self.client:
            await self.client.close()


async def copy(source: Socket, target: Socket, at_end: tuple[int, str]) -> tuple[int, str]:
    """Copy text until the source ends, no faster than the target takes it; gives close code and reason.

    One message is held at a time: a target that does not read stops the source.
    """
    try:
        async for message in source:
            if message.type == WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                return WSCloseCode.UNSUPPORTED_DATA, "SIP is sent as text"
            elif isinstance(message.data, WebSocketError):
                return message.data.code, str(message.data)[:100]
    except ConnectionError:  # the target has gone
        pass
    return at_end


async def silence(browser: web.WebSocketResponse) -> tuple[int, str]:
    """Notice that a browser answers no ping: aiohttp 3.7 does not tell those who wait for its messages."""
    while not browser.closed:
        await asyncio.sleep(HEARTBEAT / 20)
    return 1006, "the browser does not answer"
