"""The command line: `apir-py events HOST PORT USERNAME`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import logging
import os
import signal
import ssl
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from apir_py import __version__
from apir_py.ami import AmiError, Exchange, Lost, Refused, Settings, Unreachable, Untrusted, tls_context
from apir_py.event import Event, Filter, as_json, as_object, as_text, exchange_object, printable

ENDED, NOT_WRITTEN, USAGE, UNREACHABLE, REFUSED, UNTRUSTED = range(6)
"""Exit codes; the README lists them."""

SECRET_VARIABLE = "APIR_PY_SECRET"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code; wrong usage ends the program with code 2."""
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if options.command == "serve" and not unknown:
        return run_service(options.config, parser)
    if options.command == "password" and not unknown:
        return print_hash(parser)
    if unknown and unknown[0].startswith("-"):
        parser.error(f"unknown option: {unknown[0].split('=')[0]}")
    if unknown:  # not repeated in the message, since it may be the secret
        parser.error(
            f"too many arguments; the secret is not one of them: set {SECRET_VARIABLE}, use --secret-file, or enter it"
        )
    try:
        settings = Settings(
            options.host, options.port, options.username, read_secret(options), trust(options), options.tls_name
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return follow(settings, options)


def main_with_secret(arguments: Sequence[str] | None = None) -> int:
    """The first form of the program, HOST PORT USERNAME SECRET: a warning, then all events as text."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 4:
        print("usage: main.py HOST PORT USERNAME SECRET (better: apir-py events HOST PORT USERNAME)", file=sys.stderr)
        return USAGE
    print(
        "warning: every user of this machine can read a secret on a command line; use `apir-py events HOST PORT "
        f"USERNAME` with {SECRET_VARIABLE}, --secret-file or the prompt",
        file=sys.stderr,
    )
    options = build_parser().parse_args(["events", *given[:3]])
    try:
        settings = Settings(options.host, options.port, options.username, given[3])
    except ValueError as error:
        print(f"main.py: {error}", file=sys.stderr)
        return USAGE
    return follow(settings, options)


def build_parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="apir-py", description="Shows what happens on an Asterisk exchange.")
    parser.add_argument("--version", action="version", version=f"apir-py {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    events = commands.add_parser(
        "events",
        help="log into AMI and print events as they come",
        description="Logs into AMI and prints events as they come, until Ctrl-C.",
        epilog=f"The secret comes from --secret-file, from the environment variable {SECRET_VARIABLE}, or from a "
        "prompt. Exit codes: 0 ended by Ctrl-C, SIGTERM or a closed pipe; 1 output not written; 2 usage; "
        "3 unreachable; 4 username or secret refused; 5 TLS failed.",
    )
    events.add_argument("host", metavar="HOST", help="name or address of the exchange")
    events.add_argument("port", metavar="PORT", type=port, help="AMI's port, usually 5038, or 5039 with TLS")
    events.add_argument("username", metavar="USERNAME", help="a user of manager.conf")
    events.add_argument("--secret-file", metavar="FILE", help="read the secret from the first line of FILE")
    events.add_argument("--json", action="store_true", help="print a line of JSON for each event and each change")
    events.add_argument("--event", metavar="NAME", action="append", default=[], help="only events NAME (Queue*)")
    events.add_argument(
        "--channel", metavar="NAME", action="append", default=[], help="only events of channel NAME (PJSIP/6001)"
    )
    events.add_argument(
        "--number", metavar="NUMBER", action="append", default=[], help="only events in which NUMBER takes part"
    )
    events.add_argument("--tls", action="store_true", help="connect with TLS and check the certificate")
    events.add_argument("--ca", metavar="FILE", help="trust the certificates in this PEM file alone (with --tls)")
    events.add_argument("--tls-name", metavar="NAME", help="the name on the certificate, if it is not HOST")
    events.add_argument("--wait", action="store_true", help="keep trying if the exchange does not answer at first")
    events.add_argument(
        "--give-up", metavar="SECONDS", type=seconds, help="end with code 3 once the exchange is gone for so long"
    )
    service = commands.add_parser(
        "serve",
        help="pass events on to WebSockets",
        description="Passes the events of an exchange on to WebSockets over TLS, until SIGTERM. SIGHUP reads the "
        "certificate again.",
    )
    service.add_argument("config", metavar="FILE", help="the configuration; see the README")
    commands.add_parser(
        "password",
        help="print the hash of a password, for the configuration of `serve`",
        description="Asks for a password, or reads a line of standard input, and prints its hash.",
    )
    return parser


def run_service(path: str, parser: argparse.ArgumentParser) -> int:
    """Run the service; gives the exit code."""
    from apir_py import config  # these need aiohttp, or memory that `events` can do without

    try:
        from apir_py import server
    except ImportError as error:
        parser.error(f"`serve` needs aiohttp: {error}")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        asyncio.run(server.serve(config.read_config(path)))
    except config.ConfigError as error:
        parser.error(str(error))
    except OSError as error:
        say(str(error))
        return UNREACHABLE
    return ENDED


def print_hash(parser: argparse.ArgumentParser) -> int:
    """Print the hash of a password; gives the exit code."""
    from apir_py.passwords import hash_password

    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not password:
        parser.error("the password is empty")
    print(hash_password(password))
    return ENDED


def port(text: str) -> int:
    """A TCP port."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port between 1 and 65535")
    return int(text)


def seconds(text: str) -> float:
    """A time of zero or more seconds."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")


def read_secret(options: argparse.Namespace) -> str:
    """The secret, from the first place that has one (ValueError if none has, OSError if the file cannot be read)."""
    if options.secret_file:
        path = Path(options.secret_file)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not text in UTF-8") from error
        if path.is_file() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            say(f"warning: others can read {path}; chmod 600 it")
        if not lines or not lines[0]:
            raise ValueError(f"the first line of {path} is empty; it should be the secret")
        return lines[0]
    if SECRET_VARIABLE in os.environ:
        return os.environ[SECRET_VARIABLE]
    if not sys.stdin.isatty():
        raise ValueError(f"no secret: set {SECRET_VARIABLE} or use --secret-file (there is no terminal for a prompt)")
    return getpass.getpass(f"AMI secret of {options.username}: ")


def trust(options: argparse.Namespace) -> ssl.SSLContext | None:
    """The TLS context that the options ask for (ValueError)."""
    if not options.tls:
        if options.ca or options.tls_name:
            raise ValueError("--ca and --tls-name need --tls")
        return None
    try:
        return tls_context(options.ca)
    except ssl.SSLError as error:
        raise ValueError(f"{options.ca} holds no certificate in PEM form") from error


def say(text: str) -> None:
    """Report to the user, beside the events."""
    print(f"apir-py: {printable(text)}", file=sys.stderr, flush=True)


def follow(settings: Settings, options: argparse.Namespace) -> int:
    """Print events until something ends it; gives the exit code."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:  # JSON is UTF-8 whatever the locale; text must never fail on a letter the locale lacks
        reconfigure(**({"encoding": "utf-8"} if options.json else {"errors": "backslashreplace"}))
    try:
        return asyncio.run(Watch(settings, options, sys.stdout).run())
    except KeyboardInterrupt:  # where signals cannot be handled in the loop
        return ENDED


class Watch:
    """The exchange's events on their way to a stream."""

    def __init__(self, settings: Settings, options: argparse.Namespace, out: TextIO) -> None:
        """`options` are those of `apir-py events`."""
        self.address = printable(settings.address)
        self.json: bool = options.json
        self.wait: bool = options.wait
        self.give_up: float | None = options.give_up
        self.passes = Filter(options.event, options.channel, options.number)
        self.out = out
        self.exchange = Exchange(settings, self.print_event, self.print_connected, self.print_lost)
        self.connected_once = False
        self.gone_since = time.monotonic()
        self.stopped, self.ended = False, ENDED
        self.task: asyncio.Task[NoReturn] | None = None

    async def run(self) -> int:
        """Follow the exchange to the end; gives the exit code."""
        loop = asyncio.get_running_loop()
        self.task = asyncio.ensure_future(self.exchange.run(self.may_retry))
        with contextlib.suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.task.cancel)
        try:
            await self.task
        except asyncio.CancelledError:
            return self.ended
        except AmiError as error:
            say(f"{self.address}: {error}")
            return REFUSED if isinstance(error, Refused) else UNTRUSTED if isinstance(error, Untrusted) else UNREACHABLE

    def may_retry(self, error: AmiError) -> bool:
        """Whether a failure may pass: the exchange was there once, or the user waits for it."""
        if isinstance(error, Lost):
            self.gone_since = time.monotonic()
        elif not isinstance(error, Unreachable) or not (self.connected_once or self.wait):
            return False
        return self.give_up is None or time.monotonic() - self.gone_since < self.give_up

    def print_event(self, event: Event) -> None:
        """Write the event, if the filters let it pass."""
        if self.passes(event):
            self.write(as_json(as_object(event)) if self.json else as_text(event))

    def print_connected(self, greeting: str) -> None:
        """Say that the exchange is there, or there again."""
        if self.connected_once:
            gone = time.monotonic() - self.gone_since
            say(f"{self.address}: connected again after {gone:.0f} s; events of that time are missing")
        else:
            say(f"{self.address}: connected ({greeting})")
        self.connected_once = True
        self.write_state("connected", greeting)

    def print_lost(self, error: AmiError, delay: float) -> None:
        """Say that the exchange is gone, and when it is tried again."""
        what = "lost" if isinstance(error, Lost) else "still gone" if self.connected_once else "not there"
        say(f"{self.address}: {what}: {error}; next attempt in {delay:g} s")
        if isinstance(error, Lost):
            self.write_state("lost", str(error))

    def write_state(self, state: str, reason: str) -> None:
        """Say the same to a reader of JSON, who has to know where events are missing."""
        if self.json:
            self.write(as_json(exchange_object(state, reason)))

    def write(self, line: str) -> None:
        """Write a line at once; a reader that has gone, or a disk that is full, ends the program."""
        if self.stopped:
            return
        try:
            print(line, file=self.out, flush=True)
        except OSError as error:
            self.stopped = True
            # What its buffer still holds would fail again when Python ends, which then has exit code 120.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())
            if not isinstance(error, BrokenPipeError):
                say(f"cannot write: {error.strerror}")
                self.ended = NOT_WRITTEN
            assert self.task
            self.task.cancel()
