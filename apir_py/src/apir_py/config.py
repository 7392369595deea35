"""The configuration file of the service: an INI file, checked as a whole before anything starts."""

from __future__ import annotations

import configparser
import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Union

from apir_py.ami import Settings, tls_context
from apir_py.event import Filter
from apir_py.passwords import check_hash

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class ConfigError(ValueError):
    """What is wrong with the file, where, and what would be right."""


@dataclass(frozen=True)
class User:
    """Who may log in, and which events he sees."""

    password: str = field(repr=False)
    sees: Filter


@dataclass(frozen=True)
class Config:
    """The file's content; `server` holds the README's table of options."""

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


def read_config(path: str) -> Config:
    """Read and check the file (ConfigError)."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    known = {"exchange", "server"}
    for name in parser.sections():
        if name not in known and not name.startswith("user "):
            raise ConfigError(f"{path}: section [{name}] is unknown; there are [exchange], [server] and [user NAME]")
    users = {
        name[5:].strip(): _user(Section(path, parser, name)) for name in parser.sections() if name.startswith("user ")
    }
    if not users or "" in users:
        raise ConfigError(f"{path}: without a section [user NAME] nobody can log in")
    exchange, server = Section(path, parser, "exchange"), Section(path, parser, "server")
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
            raise ConfigError(f"{self.where} {option} = {text}: {error}") from error

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

    def refuse_unknown(self) -> None:
        """Refuse an option that nobody asked for: it is misspelt."""
        unknown = sorted(set(self.values) - self.asked)
        if unknown:
            raise ConfigError(f"{self.where} {unknown[0]} is unknown; there are {', '.join(sorted(self.asked))}")


def _exchange(section: Section) -> Settings:
    secret_file = section.text("secret_file")
    try:
        secret = (Path(secret_file).read_text(encoding="utf-8").splitlines() or [""])[0]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{section.where} secret_file = {secret_file}: {error}") from error
    tls, ca = section.boolean("tls"), section.text("ca", "")
    try:
        return Settings(
            section.text("host", "127.0.0.1"),
            section.integer("port", 5038, 1, 65535),
            section.text("username"),
            secret,
            tls_context(ca or None) if tls else None,
            section.text("tls_name", "") or None,
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
