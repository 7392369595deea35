"""`apir-py events` as a program: what it prints, how it ends, where the secret comes from."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from fake_ami import FakeAmi, until

from apir_py import cli

PACKAGE = Path(__file__).resolve().parents[1]


class Program:
    """The program in a process of its own. `async with Program(arguments) as program` ends it if it has not ended."""

    def __init__(self, *arguments: object, main: bool = False, **environment: str) -> None:
        """`main` is the first form of the program."""
        start = [PACKAGE / "main.py"] if main else ["-m", "apir_py"]
        self.command = [sys.executable, *map(str, [*start, *arguments])]
        unset = ("APIR_PY_SECRET", "PYTHONUNBUFFERED")
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        self.environment = {**kept, "PYTHONPATH": str(PACKAGE / "src"), **environment}

    async def __aenter__(self) -> Program:
        """Start it."""
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=self.environment
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def line(self) -> str:
        """Its next line on standard output."""
        assert self.process.stdout
        return (await self.process.stdout.readline()).decode().rstrip()

    async def end(self, number: int | None = None) -> tuple[int, str, str]:
        """Exit code, rest of the output and errors, after a signal if one is given."""
        if number:
            self.process.send_signal(number)
        out, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), errors.decode()


def events(ami: FakeAmi, *options: object, secret: str = "s3cret") -> Program:
    """`apir-py events` on a fake exchange."""
    return Program("events", "127.0.0.1", ami.port, "monitor", *options, APIR_PY_SECRET=secret)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_events_are_printed_until_a_signal(number):
    async with FakeAmi() as ami, events(ami) as program:
        await until(lambda: ami.writers)
        ami.event("Newchannel", CallerIDName="Recepción")
        line = await program.line()
        code, out, errors = await program.end(number)
    assert line[20:] == "Newchannel Privilege=call,all CallerIDName=Recepción"
    assert (code, out) == (0, "")
    assert errors == f"apir-py: 127.0.0.1:{ami.port}: connected (Asterisk Call Manager/5.0.2)\n"


async def test_json_says_when_the_exchange_was_lost_and_regained():
    async with FakeAmi() as ami, events(ami, "--json") as program:
        await until(lambda: ami.writers)
        ami.event("Hangup", Channel="PJSIP/6001-00000001")
        lines = [json.loads(await program.line()) for _ in range(2)]
        ami.drop()
        lines += [json.loads(await program.line()) for _ in range(2)]
        _, _, errors = await program.end(signal.SIGINT)
    assert [line.get("state", line.get("event")) for line in lines] == ["connected", "Hangup", "lost", "connected"]
    assert lines[1]["fields"]["Channel"] == "PJSIP/6001-00000001"
    assert "lost: the exchange closed the connection; next attempt in 1 s" in errors
    assert "connected again after 1 s; events of that time are missing" in errors


async def test_json_is_utf8_in_a_locale_without_letters():
    async with FakeAmi() as ami:
        program = events(ami, "--json", "--event", "Hangup")
        program.environment.update({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
        async with program:
            await until(lambda: ami.writers)
            ami.event("Hangup", CallerIDName="ñ")
            await program.line()
            assert json.loads(await program.line())["fields"]["CallerIDName"] == "ñ"


async def test_filters_leave_the_rest_out():
    async with FakeAmi() as ami, events(ami, "--event=hang*", "--number=6001", "--channel=PJSIP/6001") as program:
        await until(lambda: ami.writers)
        ami.event("Newchannel", Channel="PJSIP/6001-1")
        ami.event("Hangup", Channel="PJSIP/6002-2")
        ami.event("Hangup", Channel="PJSIP/6001-3")
        assert "PJSIP/6001-3" in await program.line()


async def test_closed_pipe_ends_it_quietly():
    async with FakeAmi() as ami, events(ami) as program:
        await until(lambda: ami.writers)
        program.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        while program.process.returncode is None:
            ami.event("Hangup")
            await asyncio.sleep(0.01)
        code, _, errors = await program.end()
    assert code == 0
    assert len(errors.splitlines()) == 1, errors


async def test_full_disk_has_exit_code_1():
    async with FakeAmi() as ami:
        program = events(ami, "--json")
        program.command = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *program.command]
        async with program:
            code, _, errors = await program.end()
    assert code == 1
    assert errors.splitlines()[1:] == ["apir-py: cannot write: No space left on device"]


async def test_wrong_secret_has_exit_code_4():
    async with FakeAmi() as ami, events(ami, secret="wrong") as program:
        code, out, errors = await program.end()
    assert (code, out, errors) == (4, "", f"apir-py: 127.0.0.1:{ami.port}: Authentication failed\n")


async def test_unreachable_exchange_has_exit_code_3():
    async with FakeAmi() as ami:
        pass
    async with events(ami) as program:
        code, _, errors = await program.end()
    assert (code, errors) == (3, f"apir-py: 127.0.0.1:{ami.port}: Connection refused\n")


async def test_untrusted_exchange_has_exit_code_5():
    async with FakeAmi() as ami, events(ami, "--tls") as program:
        code, _, errors = await program.end()
    assert code == 5
    assert "TLS failed" in errors


async def test_exchange_that_is_not_there_yet_is_awaited():
    async with FakeAmi() as ami:
        pass
    async with events(ami, "--wait", "--json") as program:
        assert program.process.stderr
        assert b"not there: Connection refused; next attempt in 1 s" in await program.process.stderr.readline()
        async with FakeAmi(port=ami.port):
            assert json.loads(await program.line())["state"] == "connected"


async def test_exchange_that_stays_away_is_given_up():
    async with FakeAmi() as ami, events(ami, "--give-up=0.5") as program:
        await until(lambda: ami.writers)
        ami.server.close()
        ami.drop()
        code, _, errors = await program.end()
    assert code == 3
    assert "lost: the exchange closed the connection" in errors


async def test_first_form_warns_and_works():
    async with FakeAmi() as ami, Program("127.0.0.1", ami.port, "monitor", "s3cret", main=True) as program:
        await until(lambda: ami.writers)
        ami.event("Hangup")
        assert "Hangup" in await program.line()
        code, _, errors = await program.end(signal.SIGINT)
    assert code == 0
    assert errors.startswith("warning: every user of this machine can read a secret on a command line")


@pytest.mark.parametrize("arguments", [[], ["h", "1", "u"], ["h", "1", "u", ""], ["h", "1", "u", "s", "more"]])
def test_first_form_wants_four_arguments(arguments, capsys):
    assert cli.main_with_secret(arguments) == 2
    assert capsys.readouterr().err


async def test_memory_stays_under_40_mebibytes():
    async with FakeAmi() as ami, events(ami, "--json", "--event=Last") as program:
        await until(lambda: ami.writers)
        for _ in range(100):
            ami.event("UserEvent", Body="x" * 65536)
            await ami.writers[0].drain()
        ami.event("Last")
        assert json.loads(await program.line())["state"] == "connected"
        assert json.loads(await program.line())["event"] == "Last"
        status = Path(f"/proc/{program.process.pid}/status").read_text()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    assert peak < 40 * 1024, f"{peak} KiB"


def usage_error(capsys, *arguments: str) -> str:
    """What wrong usage prints; it ends with code 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["events", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required"),
        (["h", "0", "u"], "'0' is not a port between 1 and 65535"),
        (["h", "65536", "u"], "is not a port"),
        (["h", "²", "u"], "is not a port"),
        (["h", "1", "u", "--give-up", "nan"], "is not a number of seconds"),
        (["h", "1", "u", "--nonsense=1"], "unknown option: --nonsense"),
        (["h", "1", "u", "--ca", "x"], "--ca and --tls-name need --tls"),
        (["h", "1", "u", "--tls", "--ca", "missing.pem"], "No such file"),
        (["h", "1", ""], "the username is empty"),
        (["h", "1", "u\nAction: Originate"], "the username has a character"),
        (["h", "1", "u", "--secret-file", "missing"], "No such file"),
    ],
)
def test_wrong_usage_has_exit_code_2(arguments, says, capsys, monkeypatch):
    monkeypatch.setenv("APIR_PY_SECRET", "s3cret")
    assert says in usage_error(capsys, *arguments)


def test_secret_as_an_argument_is_refused_and_not_repeated(capsys):
    error = usage_error(capsys, "h", "1", "u", "hunter2")
    assert "the secret is not one of them" in error
    assert "hunter2" not in error


def test_missing_secret_without_a_terminal_is_refused(capsys, monkeypatch):
    monkeypatch.delenv("APIR_PY_SECRET", raising=False)
    assert "no secret: set APIR_PY_SECRET or use --secret-file" in usage_error(capsys, "h", "1", "u")


@pytest.fixture
def login(monkeypatch):
    """Runs the command up to its login; gives the settings that it would use."""
    monkeypatch.setattr(cli, "follow", lambda settings, options: settings)
    monkeypatch.setenv("APIR_PY_SECRET", "from-environment")
    return lambda *options: cli.main(["events", "h", "1", "u", *options])


def test_secret_comes_from_the_environment(login):
    assert login().secret == "from-environment"


def test_secret_file_precedes_the_environment(login, tmp_path, capsys):
    path = tmp_path / "secret"
    path.write_text("from-file\nnot this\n")
    path.chmod(0o600)
    assert login("--secret-file", str(path)).secret == "from-file"
    assert not capsys.readouterr().err


def test_secret_file_that_others_read_is_warned_about(login, tmp_path, capsys):
    path = tmp_path / "secret"
    path.write_text("from-file")
    path.chmod(0o644)
    assert login("--secret-file", str(path)).secret == "from-file"
    assert f"others can read {path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is empty"), (b"\nx", "is empty"), (b"\xff", "is not text in UTF-8")]
)
def test_secret_file_without_a_secret_is_refused(content, says, tmp_path, capsys):
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert says in usage_error(capsys, "h", "1", "u", "--secret-file", str(path))


def test_secret_is_asked_for_at_a_terminal(login, monkeypatch):
    monkeypatch.delenv("APIR_PY_SECRET")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"answer to {prompt}")
    assert login().secret == "answer to AMI secret of u: "
