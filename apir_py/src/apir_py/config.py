"""The configuration file of the service: an INI file, checked as a whole before anything starts."""

from __future__ import annotations

import configparser
import importlib.util
import ipaddress
import os
import re
import ssl
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Union
from urllib.parse import urlsplit

from apir_py.ami import Settings, tls_context
from apir_py.event import Filter, printable
from apir_py.passwords import check_hash

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

NUMBER = re.compile(r"[\w.*#+@-]{1,80}", re.ASCII)
"""A number that is dialled, or a mailbox with its context (`6001@default`)."""
TABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)?")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
LISTS = ("names", "phones", "agents", "queues", "conferences", "mailboxes")
"""Sections whose options are not words of ours, but numbers and names."""


class ConfigError(ValueError):
    """What is wrong with the file, where, and what would be right."""


@dataclass(frozen=True)
class User:
    """Who may log in, and which events he sees."""

    password: str = field(repr=False)
    sees: Filter


@dataclass(frozen=True)
class Database:
    """Where the call records are."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)
    table: str
    sslmode: str


@dataclass(frozen=True)
class Config:
    """The file's content; the README's tables of options say what it means.

    names: what to show for a number or a queue. phones: number, and whether a browser may be this phone. agents: number
    and name. queues: name and number. phone: URL of Asterisk's WebSocket for SIP, empty without a phone in the browser.
    state_directory: empty if nothing is to be kept. records_status: empty if nothing forwards call
    records. copies_status: empty if nothing copies the exchange. database: None without call records.
    """

    exchange: Settings
    addresses: list[str]
    port: int
    certificate: str
    key: str
    origins: list[str]
    metrics_networks: list[Network]
    users: dict[str, User]
    session_seconds: float
    ticket_seconds: float
    login_failures: int
    login_seconds: float
    backlog_events: int
    backlog_bytes: int
    websockets_per_user: int
    connections: int
    connections_per_address: int
    request_seconds: float
    phone: str = ""
    state_directory: str = ""
    records_status: str = ""
    copies_status: str = ""
    language: str = "es"
    names: dict[str, str] = field(default_factory=dict)
    phones: dict[str, bool] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    queues: dict[str, str] = field(default_factory=dict)
    conferences: list[str] = field(default_factory=list)
    mailboxes: list[str] = field(default_factory=list)
    database: Database | None = None


def read_config(path: str) -> Config:
    """Read and check the file (ConfigError)."""
    # No section has defaults for the others: its name would be empty, which no section's is.
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True, default_section="")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    known = ("exchange", "server", "database", *LISTS)
    for name in parser.sections():
        if name not in known and not name.startswith("user "):
            there = ", ".join(f"[{section}]" for section in known)
            raise ConfigError(f"{path}: section [{name}] is unknown; there are {there} and [user NAME]")
    users = {
        name[5:].strip(): _user(Section(path, parser, name)) for name in parser.sections() if name.startswith("user ")
    }
    if not users or "" in users:
        raise ConfigError(f"{path}: without a section [user NAME] nobody can log in")
    exchange, server = Section(path, parser, "exchange"), Section(path, parser, "server")
    lists = {name: Section(path, parser, name) for name in LISTS}
    config = Config(
        exchange=_exchange(exchange),
        addresses=server.words("address", "0.0.0.0 ::"),
        port=server.integer("port", 8888, 1, 65535),
        certificate=server.text("certificate"),
        key=server.text("key"),
        origins=server.words("origins", ""),
        metrics_networks=server.checked(
            "metrics_networks", "127.0.0.1 ::1", lambda text: [ipaddress.ip_network(word) for word in text.split()]
        ),
        users=users,
        session_seconds=server.integer("session_seconds", 12 * 3600, 1),
        ticket_seconds=server.integer("ticket_seconds", 30, 1, 3600),
        login_failures=server.integer("login_failures", 5, 1),
        login_seconds=server.integer("login_seconds", 60, 1),
        backlog_events=server.integer("backlog_events", 5000, 1),
        backlog_bytes=server.integer("backlog_bytes", 4 << 20, 1),
        websockets_per_user=server.integer("websockets_per_user", 50, 1),
        connections=server.integer("connections", 200, 1),
        connections_per_address=server.integer("connections_per_address", 50, 1),
        request_seconds=server.integer("request_seconds", 10, 1),
        phone=server.checked("phone", "", _websocket),
        state_directory=server.checked("state_directory", "", _directory),
        records_status=server.text("records_status", ""),
        copies_status=server.text("copies_status", ""),
        language=server.matching("language", "es", re.compile("[a-z]{2,3}"), "a language such as es or en"),
        names=lists["names"].numbers(_name, any_key=True),
        phones=lists["phones"].numbers(_is_webrtc),
        agents=lists["agents"].numbers(_name),
        queues=lists["queues"].numbers(_number, any_key=True),
        conferences=list(lists["conferences"].numbers(_nothing)),
        mailboxes=list(lists["mailboxes"].numbers(_nothing)),
        database=_database(Section(path, parser, "database")) if parser.has_section("database") else None,
    )
    exchange.refuse_unknown()
    server.refuse_unknown()
    return config


class Section:
    """A section of the file; it remembers which options have been asked for."""

    def __init__(self, path: str, parser: configparser.ConfigParser, name: str) -> None:
        """See the class."""
        self.where = f"{path}: [{name}]"
        self.values = dict(parser[name]) if parser.has_section(name) else {}
        self.asked: set[str] = set()

    def text(self, option: str, default: str | None = None) -> str:
        """An option's text; without a default it has to be there."""
        self.asked.add(option)
        value = self.values.get(option, default)
        if value is None or (value == "" and default is None):
            raise ConfigError(f"{self.where} {option} is missing")
        return value

    def words(self, option: str, default: str) -> list[str]:
        """A list, divided by spaces or lines."""
        return self.text(option, default).split()

    def checked(self, option: str, default: str, convert: Callable[[str], Any]) -> Any:
        """What `convert` makes of the text; it raises ValueError for what is wrong."""
        text = self.text(option, default)
        try:
            return convert(text)
        except ValueError as error:
            raise ConfigError(f"{self.where} {option} = {printable(text)}: {error}") from error

    def integer(self, option: str, default: int, least: int, most: int | None = None) -> int:
        """A whole number within bounds."""

        def convert(text: str) -> int:
            number = int(text) if text.isascii() and text.isdigit() else least - 1
            if number < least or (most is not None and number > most):
                raise ValueError(f"not a whole number of {least} or more{f', up to {most}' if most else ''}")
            return number

        return self.checked(option, str(default), convert)

    def boolean(self, option: str) -> bool:
        """`yes` or `no`, which is the default."""

        def convert(text: str) -> bool:
            if text not in ("yes", "no"):
                raise ValueError("neither yes nor no")
            return text == "yes"

        return self.checked(option, "no", convert)

    def matching(self, option: str, default: str, pattern: re.Pattern[str], what: str) -> str:
        """A text that a pattern describes."""

        def convert(text: str) -> str:
            if not pattern.fullmatch(text):
                raise ValueError(f"not {what}")
            return text

        return self.checked(option, default, convert)

    def numbers(self, convert: Callable[[str], Any], any_key: bool = False) -> dict[str, Any]:
        """All options, which are numbers, or any text to print, each with what `convert` makes of its value."""
        for option in self.values:
            if not option.isprintable() or not (any_key or NUMBER.fullmatch(option)):
                raise ConfigError(f"{self.where} {option!r} is not a number")
        return {option: self.checked(option, "", convert) for option in self.values}

    def refuse_unknown(self) -> None:
        """Refuse an option that nobody asked for: it is misspelt."""
        unknown = sorted(set(self.values) - self.asked)
        if unknown:
            raise ConfigError(f"{self.where} {unknown[0]} is unknown; there are {', '.join(sorted(self.asked))}")


def _first_line(path: str) -> str:
    try:
        return (Path(path).read_text(encoding="utf-8").splitlines() or [""])[0]
    except OSError as error:
        raise ValueError(error.strerror) from error


def _websocket(text: str) -> str:
    url = urlsplit(text)
    # A port that is none raises ValueError.
    if text and not (url.scheme in ("ws", "wss") and url.hostname and url.port != 0):
        raise ValueError("not a URL such as ws://127.0.0.1:8088/ws")
    return text


def _directory(text: str) -> str:
    if text and not (os.path.isdir(text) and os.access(text, os.W_OK)):
        raise ValueError("not a directory that can be written to")
    return text


def _name(text: str) -> str:
    # Not isprintable(), which refuses a non-breaking space, and letters that are newer than this Python.
    if not text or any(unicodedata.category(letter) == "Cc" for letter in text):
        raise ValueError("not a name of one line")
    return text


def _number(text: str) -> str:
    if text and not NUMBER.fullmatch(text):
        raise ValueError("not a number")
    return text


def _is_webrtc(text: str) -> bool:
    if text not in ("", "webrtc"):
        raise ValueError("neither webrtc nor empty")
    return text == "webrtc"


def _nothing(text: str) -> None:
    if text:
        raise ValueError("nothing belongs after the =")


def _database(section: Section) -> Database:
    if not importlib.util.find_spec("psycopg2"):
        raise ConfigError(f"{section.where} needs psycopg2, which is not installed")
    database = Database(
        host=section.text("host", "127.0.0.1"),
        port=section.integer("port", 5432, 1, 65535),
        name=section.text("name"),
        user=section.text("user"),
        password=section.checked("password_file", "", lambda text: _first_line(text) if text else ""),
        table=section.matching("table", "cdr", TABLE, "the name of a table"),
        sslmode=section.matching(
            "sslmode", "prefer", re.compile("|".join(SSL_MODES)), f"one of {', '.join(SSL_MODES)}"
        ),
    )
    section.refuse_unknown()
    return database


def _exchange(section: Section) -> Settings:
    section.text("secret_file")
    secret = section.checked("secret_file", "", _first_line)
    tls, ca = section.boolean("tls"), section.text("ca", "")
    try:
        return Settings(
            section.text("host", "127.0.0.1"),
            section.integer("port", 5038, 1, 65535),
            section.text("username"),
            secret,
            tls_context(ca or None) if tls else None,
            section.text("tls_name", "") or None,
            longest_delay=5,  # an exchange that has restarted is shown soon
        )
    except (ValueError, OSError, ssl.SSLError) as error:
        raise ConfigError(f"{section.where} {error}") from error


def _user(section: Section) -> User:
    password = section.text("password")
    try:
        check_hash(password)
    except ValueError as error:
        raise ConfigError(f"{section.where} password: {error}") from error
    user = User(
        password, Filter(section.words("events", ""), section.words("channels", ""), section.words("numbers", ""))
    )
    section.refuse_unknown()
    return user
