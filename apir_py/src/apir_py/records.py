"""Call records out of PostgreSQL: pages in JSON, or all of them in CSV.

One thread asks the database, so that nobody else waits for it; a database that is down or slow gives 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import logging
import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, AsyncGenerator, Callable, Iterator, Mapping

import psycopg2
from aiohttp import web
from psycopg2 import sql
from psycopg2.extensions import QueryCanceledError

from apir_py.config import Database
from apir_py.event import Event, Filter, timestamp

LARGEST_PAGE, LARGEST_SIZE = 1000, 200
AT_ONCE = 2
"""Requests that are served or wait for the thread; the next one is refused for the moment."""
STATEMENT_SECONDS, CONNECT_SECONDS = 5, 3
HANGS_AFTER = CONNECT_SECONDS + STATEMENT_SECONDS + 1
"""Seconds until a database that does not even keep its own limits is given up."""
LONGEST_DELAY = 10
"""Seconds, at most, between two attempts to reach the database; it doubles from 1 with each that fails."""
ROWS = 2000
"""Rows of a CSV file that are in memory at once."""
READ_WITHIN = 30
"""Seconds in which a client has to take a part of a CSV file."""

PARAMETERS = ("number", "from", "to", "page", "size")
TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?P<time>[T ]\d\d:\d\d(:\d\d(\.\d{3}(\d{3})?)?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII | re.IGNORECASE
)
COLUMNS = (
    *("id", "calldate", "clid", "src", "dst", "channel"),
    *("lastapp", "lastdata", "duration", "billsec", "disposition", "uniqueid"),
)
COPIED = ("seconds", "talk_seconds", "disposition", "queue", "channel", "uniqueid")
HEADER = ("at", "caller", "caller_name", "callee", "callee_name", *COPIED)
# What Excel, LibreOffice or a Japanese Excel may take for the beginning of a formula.
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")

log = logging.getLogger(__name__)


class Unavailable(Exception):
    """Why there are no records now, in one sentence."""


@dataclass(frozen=True)
class Search:
    """Which records are asked for. Times are in UTC; `before` itself is not included."""

    number: str = ""
    since: datetime | None = None
    before: datetime | None = None
    page: int = 1
    size: int = 50

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Search:
        """A request's parameters (ValueError with a sentence)."""
        for name in query:
            if name not in PARAMETERS:
                raise ValueError(f"there is no parameter {name[:32]!r}; there are {', '.join(PARAMETERS)}")
        number = query.get("number", "")
        if not re.fullmatch(r"[0-9*#+]{0,32}", number):
            raise ValueError("number should be up to 32 of 0 to 9, *, # and +")
        return cls(
            number,
            moment("from", query.get("from", "")),
            moment("to", query.get("to", ""), inclusive=True),
            whole_number("page", query.get("page") or "1", LARGEST_PAGE),
            whole_number("size", query.get("size") or "50", LARGEST_SIZE),
        )


def moment(name: str, text: str, inclusive: bool = False) -> datetime | None:
    """A date or a time, in UTC; if it is to be included, what comes just after it. Without zone it is local time."""
    if not text:
        return None
    match = TIME.fullmatch(text)
    try:
        if not match:
            raise ValueError
        at = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        if inclusive:
            at += timedelta(microseconds=1) if match["time"] else timedelta(days=1)
        return at.astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{name} should be a date such as 2026-01-31, or 2026-01-31T08:15:00Z") from None


def whole_number(name: str, text: str, most: int) -> int:
    """A number from 1 on."""
    number = int(text) if re.fullmatch("[0-9]{1,6}", text) else 0
    if not 1 <= number <= most:
        raise ValueError(f"{name} should be a whole number from 1 to {most}")
    return number


def asked(request: web.Request) -> Search:
    """What a request asks for."""
    try:
        return Search.of(request.query)
    except ValueError as error:
        raise web.HTTPBadRequest(reason=str(error)) from error


def condition(search: Search, sees: Filter) -> tuple[str, dict[str, Any]]:
    """The condition in SQL of what is asked for and may be seen, with its parameters."""
    parts = ["true"]
    parameters: dict[str, Any] = {}
    if search.since:
        parts.append("calldate >= %(since)s")
        parameters["since"] = search.since.replace(tzinfo=None)
    if search.before:
        parts.append("calldate < %(before)s")
        parameters["before"] = search.before.replace(tzinfo=None)
    for name, numbers in (("asked", [search.number] if search.number else []), ("seen", list(sees.numbers))):
        if numbers:
            parts.append(
                f"(src = ANY(%({name})s) OR dst = ANY(%({name})s)"
                f" OR channel LIKE ANY(%({name}_in)s) OR dstchannel LIKE ANY(%({name}_in)s))"
            )
            parameters[name] = numbers
            # PJSIP/6001-0000001a, or Local/6001@phones-00000001;1
            parameters[f"{name}_in"] = [f"%/{literal(number)}{end}%" for number in numbers for end in "-@"]
    if sees.channels:
        parts.append("(channel ILIKE ANY(%(channels)s) OR dstchannel ILIKE ANY(%(channels)s))")
        parameters["channels"] = [pattern(channel) for channel in sees.channels]
    return " AND ".join(parts), parameters


def literal(text: str) -> str:
    """The text as a pattern of LIKE that matches nothing else."""
    return re.sub(r"([\\%_])", r"\\\1", text)


def pattern(channel: str) -> str:
    """A pattern of Filter's as one of LIKE."""
    wild = literal(channel).replace("*", "%").replace("?", "_")
    return wild if set("*?") & set(channel) else f"{wild}%"


class Records:
    """The table of call records. `close` it at the end."""

    def __init__(self, database: Database, names: Mapping[str, str]) -> None:
        """Nothing is opened yet. `names` are shown for numbers."""
        self.database, self.names = database, names
        self.thread = ThreadPoolExecutor(1, "records")
        self.connection: Any = None
        self.hanging: asyncio.Future[Any] | None = None
        self.busy = 0
        self.delay, self.next_attempt = 1.0, 0.0
        self.closed = False

    def close(self) -> None:
        """Ask no more."""
        self.closed = True
        self.thread.submit(self.forget)
        self.thread.shutdown(wait=False)

    @staticmethod
    def may_see(sees: Filter) -> bool:
        """Whether a user who sees these events may see records: only if he would see the event Cdr."""
        return Filter(events=sees.events)(Event("Cdr", {}, datetime.now(timezone.utc)))

    async def answer_page(self, request: web.Request, sees: Filter) -> web.Response:
        """A page of records, the newest first, as JSON."""
        search = asked(request)
        query, parameters = self.query(search, sees)
        parameters.update(most=search.size + 1, offset=(search.page - 1) * search.size)
        with self.turn():
            rows = await self.run(lambda: self.page(query + sql.SQL(" LIMIT %(most)s OFFSET %(offset)s"), parameters))
        found = [self.record(dict(zip(COLUMNS, row))) for row in rows[: search.size]]
        return web.json_response(
            {"records": found, "page": search.page, "size": search.size, "more": len(rows) > search.size}
        )

    async def answer_csv(self, request: web.Request, sees: Filter) -> web.StreamResponse:
        """All records, the newest first, as CSV. If not all can be sent, the connection breaks."""
        query, parameters = self.query(asked(request), sees)
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/csv; charset=utf-8; header=present",
                "Content-Disposition": 'attachment; filename="records.csv"',
            }
        )
        with self.turn():
            parts = self.parts(query, parameters)
            try:
                async for part in parts:
                    if not response.prepared:
                        await response.prepare(request)
                    await asyncio.wait_for(response.write(part), READ_WITHIN)
            except (Unavailable, asyncio.TimeoutError, ConnectionError) as error:
                if not response.prepared:
                    raise
                log.warning("call records: a file was not sent whole: %s", str(error) or "the client does not read")
                if request.transport:
                    request.transport.abort()
            finally:
                await parts.aclose()
        return response

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Serve a request, if there are not too many."""
        if self.busy >= AT_ONCE:
            raise web.HTTPTooManyRequests(reason="call records are being searched, try again in a moment")
        self.busy += 1
        try:
            yield
        except Unavailable as error:
            raise web.HTTPServiceUnavailable(reason=str(error)) from error
        finally:
            self.busy -= 1

    def query(self, search: Search, sees: Filter) -> tuple[sql.Composable, dict[str, Any]]:
        """What to ask the database, and with which parameters."""
        where, parameters = condition(search, sees)
        table = sql.SQL(".").join(map(sql.Identifier, self.database.table.split(".")))
        text = f"SELECT {', '.join(COLUMNS)} FROM {{}} WHERE {where} ORDER BY calldate DESC, id DESC"
        return sql.SQL(text).format(table), parameters

    def record(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row in the README's form."""
        at = row["calldate"]
        if at and not at.tzinfo:
            at = at.replace(tzinfo=timezone.utc)
        name = re.fullmatch(r'"?(.*?)"?\s*<[^<>]*>', row["clid"] or "", re.DOTALL)
        return {
            "id": str(row["id"]),
            "at": timestamp(at) if at else None,
            "caller": {"number": row["src"], "name": self.names.get(row["src"]) or (name[1] if name else "")},
            "callee": {"number": row["dst"], "name": self.names.get(row["dst"], "")},
            "seconds": row["duration"],
            "talk_seconds": row["billsec"],
            "disposition": row["disposition"],
            "queue": (row["lastdata"] or "").split(",")[0] if row["lastapp"] == "Queue" else None,
            "uniqueid": row["uniqueid"],
            "channel": row["channel"],
        }

    async def run(self, work: Callable[[], Any], connection: Callable[[], Any] | None = None) -> Any:
        """Have the thread do what may take time (Unavailable). The connection is cut if it hangs."""
        if self.hanging and not self.hanging.done():
            raise Unavailable("the database of the call records does not answer")
        future = asyncio.get_running_loop().run_in_executor(self.thread, work)
        await asyncio.wait({future}, timeout=HANGS_AFTER)
        if not future.done():
            self.hanging = future
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            cut(connection() if connection else self.connection)
            log.warning("call records: the database does not answer")
            raise Unavailable("the database of the call records does not answer")
        try:
            return future.result()
        except QueryCanceledError:
            raise Unavailable(f"the search took longer than {STATEMENT_SECONDS} s; ask for fewer days") from None
        except psycopg2.Error as error:
            log.warning("call records: %s", " ".join(str(error).split()))
            raise Unavailable("the call records cannot be read; the log of the service says why") from None

    def page(self, query: sql.Composable, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Ask on the kept connection. A new one is tried once if that has ended meanwhile. (In the thread.)"""
        started, kept = time.monotonic(), self.connection
        if kept is None:
            self.connection = self.connect()
        try:
            with self.connection, self.connection.cursor() as cursor:
                cursor.execute(query, parameters)
                return cursor.fetchall()
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            if isinstance(error, QueryCanceledError):
                raise
            self.forget()
            if kept is None or time.monotonic() - started > 1:
                raise
            return self.page(query, parameters)

    def forget(self) -> None:
        """Close the kept connection. (In the thread.)"""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    async def parts(self, query: sql.Composable, parameters: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """The file in parts, through a connection and a cursor of its own: the database keeps what is not read yet."""
        connection = await self.run(self.connect)
        try:
            cursor = connection.cursor("records")
            await self.run(lambda: cursor.execute(query, parameters), lambda: connection)
            yield ("\ufeff" + csv_lines([HEADER])).encode()
            while not self.closed:
                part = await self.run(lambda: self.csv_part(cursor.fetchmany(ROWS)), lambda: connection)
                if not part:
                    return
                yield part
            raise Unavailable("the service ends")
        finally:
            with contextlib.suppress(RuntimeError):  # the service ends
                # Not here: it would wait for what the thread does on it.
                self.thread.submit(connection.close)

    def csv_part(self, rows: list[tuple[Any, ...]]) -> bytes:
        """Rows as lines of CSV. (In the thread.)"""
        return csv_lines(self.csv_row(dict(zip(COLUMNS, row))) for row in rows).encode()

    def csv_row(self, row: Mapping[str, Any]) -> list[Any]:
        """A row in the order of HEADER."""
        record = self.record(row)
        caller, callee = record["caller"], record["callee"]
        numbers = caller["number"], caller["name"], callee["number"], callee["name"]
        return [record["at"], *numbers, *(record[name] for name in COPIED)]

    def connect(self) -> Any:
        """A connection that can only read. (In the thread.)"""
        if time.monotonic() < self.next_attempt:
            raise Unavailable("the database of the call records is not there; it is tried again soon")
        database = self.database
        limits = {
            "default_transaction_read_only": "on",
            "idle_in_transaction_session_timeout": f"{2 * READ_WITHIN}s",
            "statement_timeout": f"{STATEMENT_SECONDS}s",
            "timezone": "UTC",
        }
        try:
            connection = psycopg2.connect(
                host=database.host or None,
                port=database.port,
                dbname=database.name,
                user=database.user,
                password=database.password or None,
                sslmode=database.sslmode,
                connect_timeout=CONNECT_SECONDS,
                client_encoding="UTF8",
                application_name="apir_py",
                options=" ".join(f"-c {name}={value}" for name, value in limits.items()),
            )
        except psycopg2.OperationalError:
            self.next_attempt = time.monotonic() + self.delay
            self.delay = min(2 * self.delay, LONGEST_DELAY)
            raise
        self.delay = 1.0
        return connection


def cut(connection: Any) -> None:
    """End a connection on which another thread waits."""
    if connection is not None and not connection.closed:
        with contextlib.suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(connection.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)


def csv_lines(rows: Any) -> str:
    """Lines of CSV. What a spreadsheet would calculate gets a ' before it."""
    text = io.StringIO()
    writer = csv.writer(text)
    for row in rows:
        writer.writerow([f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell for cell in row])
    return text.getvalue()
