"""The configuration file, and the commands `serve` and `password`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import ssl
from pathlib import Path

import aiohttp
import pytest
from apir_py.config import ConfigError, Database, read_config
from apir_py.passwords import verify
from fake_ami import FakeAmi
from running_service import cheap_hash
from test_events_command import Program

from apir_py import cli

FILE = """\
# Comments are allowed.
[exchange]
username = monitor
secret_file = {directory}/secret
{exchange}
[server]
certificate = certificate.pem
key = key.pem
{server}
[user ana]
password = {password}
{user}
"""


@pytest.fixture
def write(tmp_path):
    """Writes a configuration with more lines in its sections; gives its path."""

    def written(exchange: str = "", server: str = "", user: str = "", password: str = cheap_hash("right")) -> str:
        (tmp_path / "secret").write_text("s3cret\n")
        text = FILE.format(directory=tmp_path, exchange=exchange, server=server, user=user, password=password)
        (tmp_path / "events.ini").write_text(text)
        return str(tmp_path / "events.ini")

    return written


def test_defaults_are_in_force(write):
    config = read_config(write())
    assert (config.exchange.address, config.exchange.username, config.exchange.secret) == (
        "127.0.0.1:5038",
        "monitor",
        "s3cret",
    )
    assert (config.port, config.addresses, config.session_seconds) == (8888, ["0.0.0.0", "::"], 43200)
    assert [str(network) for network in config.metrics_networks] == ["127.0.0.1/32", "::1/128"]
    assert list(config.users) == ["ana"]


def test_options_are_read(write):
    config = read_config(
        write(
            "host = 192.0.2.1\nport = 5039\ntls = yes",
            "port = 9999\naddress = 127.0.0.1\norigins = https://a.example https://b.example",
            "events = Queue* Agent*",
        )
    )
    assert config.exchange.address == "192.0.2.1:5039"
    assert config.exchange.tls
    assert (config.port, config.addresses) == (9999, ["127.0.0.1"])
    assert config.origins == ["https://a.example", "https://b.example"]
    assert config.users["ana"].sees.events == ["Queue*", "Agent*"]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ({"server": "prot = 1"}, "[server] prot is unknown; there are address"),
        ({"exchange": "hots = h"}, "[exchange] hots is unknown"),
        ({"user": "sees = x"}, "[user ana] sees is unknown; there are channels, events, numbers, password"),
        ({"server": "port = 0"}, "[server] port = 0: not a whole number of 1 or more, up to 65535"),
        ({"server": "session_seconds = -5"}, "[server] session_seconds = -5: not a whole number of 1 or more"),
        ({"server": "metrics_networks = 10.0.0.1/8"}, "has host bits set"),
        ({"exchange": "tls = true"}, "[exchange] tls = true: neither yes nor no"),
        ({"exchange": "tls = yes\nca = missing.pem"}, "[exchange] [Errno 2]"),
        ({"server": "[other]"}, "section [other] is unknown; there are [exchange], [server], [database], [names]"),
        ({"server": "port = 1\nport = 2"}, "already exists"),
        ({"server": "nonsense"}, "nonsense"),
        ({"password": "secret"}, "[user ana] password: not a hash that `apir-py password` makes"),
        ({"password": ""}, "[user ana] password is missing"),
        ({"user": "[user ]\npassword = x"}, "password: not a hash"),
        ({"user": "[DEFAULT]\nevents = x"}, "section [DEFAULT] is unknown"),
        (
            {"server": "phone = http://127.0.0.1/ws"},
            "phone = http://127.0.0.1/ws: not a URL such as ws://127.0.0.1:8088",
        ),
        ({"server": "phone = ws://127.0.0.1:99999/ws"}, "[server] phone = ws://127.0.0.1:99999/ws: Port out of range"),
        ({"server": "state_directory = /missing"}, "/missing: not a directory that can be written to"),
        ({"server": "language = Spanish"}, "language = Spanish: not a language such as es or en"),
        ({"user": "[names]\n6001 ="}, "[names] 6001 = : not a name of one line"),
        ({"user": "[names]\n6001 = Ana\n  Ruiz"}, "not a name of one line"),
        ({"user": "[names]\n6001 = \x1b[2J"}, "not a name of one line"),
        ({"user": "[names]\n6001 = Ana\n6001 = Luis"}, "already exists"),
        ({"user": "[phones]\n6001 = webrct"}, "[phones] 6001 = webrct: neither webrtc nor empty"),
        ({"user": "[phones]\n60 01 ="}, "[phones] '60 01' is not a number"),
        ({"user": "[agents]\n6001 ="}, "[agents] 6001 = : not a name"),
        ({"user": "[queues]\nColaUno = 80 01"}, "[queues] ColaUno = 80 01: not a number"),
        ({"user": "[conferences]\n6000 = Reunión"}, "[conferences] 6000 = Reunión: nothing belongs after the ="),
        ({"user": "[mailboxes]\n6001"}, "6001"),
        ({"user": "[database]\nuser = events"}, "[database] name is missing"),
        ({"user": "[database]\nname = asterisk\nuser = events\nhots = h"}, "[database] hots is unknown"),
        ({"user": "[database]\nname = a\nuser = e\ntable = cdr; drop"}, "table = cdr; drop: not the name of a table"),
        ({"user": "[database]\nname = a\nuser = e\nsslmode = on"}, "sslmode = on: not one of disable, allow, prefer"),
        (
            {"user": "[database]\nname = a\nuser = e\npassword_file = /missing"},
            "password_file = /missing: No such file",
        ),
    ],
)
def test_wrong_file_is_refused_in_one_sentence(write, lines, says):
    with pytest.raises(ConfigError) as refused:
        read_config(write(**lines))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "without a section [user NAME] nobody can log in"),
        ("[user a]\npassword = {password}\n", "[exchange] secret_file is missing"),
        ("[user a]\npassword = {password}\n[exchange]\nsecret_file = missing\n", "secret_file = missing: No such file"),
        ("\xff", "codec"),
    ],
)
def test_incomplete_file_is_refused(tmp_path, text, says):
    path = tmp_path / "events.ini"
    path.write_bytes(text.format(password=cheap_hash("x")).encode("latin-1"))
    with pytest.raises(ConfigError) as refused:
        read_config(str(path))
    assert says in str(refused.value)


NAMES = {"6001": 'Ana; "Ruiz" = 100 % #1', "6002": "%(password)s ${x} <b>", "*21": "Desvío", "ColaUno": "Cola 1"}


def test_lists_are_read_as_they_are_written(write):
    lists = "\n".join(["[names]", *(f"{number} = {name}" for number, name in NAMES.items())])
    lists += "\n[phones]\n6001 =\n6009 = webrtc\n[agents]\n6001 = Ana\n[queues]\nColaUno = 8001\ncolauno =\n"
    config = read_config(write(user=lists + "[conferences]\n6000 =\n[mailboxes]\n6001 =\n6002@other =\n"))
    assert config.names == NAMES
    assert config.phones == {"6001": False, "6009": True}
    assert config.agents == {"6001": "Ana"}
    assert config.queues == {"ColaUno": "8001", "colauno": ""}
    assert (config.conferences, config.mailboxes) == (["6000"], ["6001", "6002@other"])


def test_lists_and_database_may_be_missing(write):
    config = read_config(write())
    assert (config.names, config.phones, config.agents, config.queues) == ({}, {}, {}, {})
    assert (config.conferences, config.mailboxes, config.database) == ([], [], None)
    assert (config.phone, config.state_directory, config.language) == ("", "", "es")


def test_database_and_phone_are_read(write, tmp_path):
    (tmp_path / "password").write_text("s3cret=%\n")
    options = f"[database]\nname = asterisk\nuser = events\npassword_file = {tmp_path}/password\nsslmode = verify-full"
    server = f"phone = ws://127.0.0.1:8088/ws\nlanguage = en\nstate_directory = {tmp_path}"
    config = read_config(write(server=server, user=options))
    expected = Database("127.0.0.1", 5432, "asterisk", "events", "s3cret=%", "cdr", "verify-full")
    assert config.database == expected
    assert "s3cret" not in repr(config)
    assert (config.phone, config.language) == ("ws://127.0.0.1:8088/ws", "en")
    assert config.state_directory == str(tmp_path)


def test_database_needs_psycopg2(write, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"\[database\] needs psycopg2, which is not installed"):
        read_config(write(user="[database]\nname = asterisk\nuser = events"))


def test_missing_file_has_exit_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", str(tmp_path / "missing.ini")])
    assert ended.value.code == 2
    assert "No such file" in capsys.readouterr().err


def test_secret_and_hash_are_not_shown(write):
    shown = repr(read_config(write()))
    assert "s3cret" not in shown
    assert "scrypt" not in shown


def test_password_is_read_from_a_pipe(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("contraseña\n"))
    assert cli.main(["password"]) == 0
    assert verify("contraseña", capsys.readouterr().out.strip())


def test_empty_password_is_refused(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["password"])
    assert ended.value.code == 2


async def connected(http: aiohttp.ClientSession, url: str) -> None:
    """Ask a service that starts until it is logged in to its exchange."""
    answer = None
    while answer != {"exchange": "connected"}:
        await asyncio.sleep(0.05)
        with contextlib.suppress(aiohttp.ClientConnectorError):
            async with http.get(url) as response:
                answer = await response.json()


async def test_service_runs_from_a_file_until_sigterm(write, certificate, free_port):
    async with FakeAmi() as ami:
        path = Path(write(f"port = {ami.port}", f"port = {free_port}\naddress = 127.0.0.1"))
        text = path.read_text().replace("certificate.pem", certificate[0]).replace("key.pem", certificate[1])
        path.write_text(text)
        async with Program("serve", path) as program:
            trust = ssl.create_default_context(cafile=certificate[0])
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as http:
                await asyncio.wait_for(connected(http, f"https://127.0.0.1:{free_port}/healthz"), 10)
                body = {"user": "ana", "password": "wrong"}
                async with http.post(f"https://127.0.0.1:{free_port}/login", json=body) as response:
                    assert response.status == 401
            status = Path(f"/proc/{program.process.pid}/status").read_text()
            program.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.2)
            code, out, errors = await program.end(signal.SIGTERM)
    assert (code, out) == (0, "")
    assert [line for line in errors.splitlines() if "5.0.2" not in line] == [
        f"INFO listening on port {free_port}",
        "WARNING login of ana from 127.0.0.1: refused",
        "INFO certificate read again",
    ]
    (memory,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    assert memory < 60 * 1024, f"{memory} KiB"


async def test_service_without_its_certificate_does_not_start(write):
    async with Program("serve", write()) as program:
        code, _, errors = await program.end()
    assert code == 3
    assert "No such file" in errors
    assert "Traceback" not in errors


def test_readme_shows_objects_that_are_json():
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    lines = [line.strip() for line in readme.splitlines() if line.startswith('    {"v":')]
    assert len(lines) >= 11
    assert all(json.loads(line)["v"] == 1 for line in lines)
    (records,) = (line for line in readme.splitlines() if line.startswith('    {"records"'))
    assert list(json.loads(records)["records"][0])[:3] == ["id", "at", "caller"]
