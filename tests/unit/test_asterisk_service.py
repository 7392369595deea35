"""Module asterisk_service against programs that answer as systemctl and asterisk do."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.labredes.pbx.plugins.module_utils import asterisk_cli, read_files
from ansible_collections.labredes.pbx.plugins.modules import asterisk_service

SYSTEMCTL = """#!/bin/sh
case "$1" in
show) cat {0}/state ;;
*) echo "$1" >> {0}/commands; [ "$1" != restart ] || cp {0}/restarted {0}/state ;;
esac
"""
ASTERISK = """#!/bin/sh
[ ! -e {0}/hung ] || exec sleep 30
echo "$2" >> {0}/commands
case "$2" in
"core waitfullybooted") cat {0}/booted ;;
"module show like "*) cat {0}/shown ;;
"module load "*) echo "${{2##* }}.so  A module  0  Running  extended" > {0}/shown ;;
"module unload "*) : > {0}/shown ;;
"core show channels concise") cat {0}/calls ;;
*) [ ! -e {0}/error ] || cat {0}/error >> {0}/messages; cat {0}/answer ;;
esac
"""
CALLS = "core show channels concise"
FILES = [
    {"name": "modules.conf"},
    {"name": "queues.conf", "reload": "app_queue"},
    {"name": "http.conf", "reload": "http"},
]
REFUSED = (
    "[2026-01-02 03:04:05.678] ERROR[42] res_sorcery_config.c: Could not create an object of type 'endpoint' with id "
    "'6001' from configuration file 'pjsip.conf'\n"
)


class Engine:
    """A directory with the two programs, the files, and the answers."""

    def __init__(self, path: Path):
        self.path = path
        for name, text in (("systemctl", SYSTEMCTL), ("asterisk", ASTERISK)):
            (path / "bin" / name).parent.mkdir(exist_ok=True)
            (path / "bin" / name).write_text(text.format(path))
            (path / "bin" / name).chmod(0o755)
        for item in FILES:
            (path / item["name"]).write_text("1\n")
        (path / "booted").write_text("Asterisk has fully booted.\n")
        (path / "shown").write_text("cel_x.so  A module  0  Not Running  extended\n")
        (path / "calls").touch()
        (path / "messages").write_text(REFUSED)  # of an earlier moment
        self.answer("Module 'app_queue' reloaded successfully.")
        self.state("active")
        self.state("active", name="restarted", invocation="two")

    def state(self, active: str, reload: str = "no", name: str = "state", invocation: str = "one") -> None:
        """What `systemctl show` prints."""
        started = int(time.clock_gettime(read_files.BOOTTIME) * 1e6)
        (self.path / name).write_text(
            f"ActiveState={active}\nInvocationID={invocation}\n"
            f"ExecMainStartTimestampMonotonic={started}\nNeedDaemonReload={reload}\n"
        )

    def answer(self, text: str) -> None:
        """What `asterisk -rx` prints."""
        (self.path / "answer").write_text(text + "\n")

    def write(self, name: str) -> None:
        """Replace a file."""
        (self.path / "draft").write_text("2\n")
        os.rename(self.path / "draft", self.path / name)

    def commands(self) -> list[str]:
        """The commands so far, without those that only ask; then forgets them."""
        path = self.path / "commands"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        ours = (CALLS, "core waitfullybooted", "module show")
        return [line for line in lines if not line.startswith(ours)]


@pytest.fixture
def engine(tmp_path, monkeypatch) -> Engine:
    """An Asterisk that runs and has read all its files."""
    monkeypatch.setattr(read_files, "DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setattr(read_files.ReadFiles.__init__, "__defaults__", (str(tmp_path / "run"),))
    monkeypatch.setattr(asterisk_cli, "ASTERISK", str(tmp_path / "bin/asterisk"))
    monkeypatch.setattr(asterisk_service, "BOOTED", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    engine = Engine(tmp_path)
    time.sleep(0.02)
    engine.state("active")
    return engine


@pytest.fixture
def run(engine, run_module):
    """A function that runs the module and gives its answer."""

    def now(check: bool = False, **options: object) -> dict:
        arguments = {
            "directory": str(engine.path),
            "files": FILES,
            "directories": [str(engine.path / "bin")],
            "log": str(engine.path / "messages"),
            "timeout": 1,
            **options,
        }
        return run_module(asterisk_service, check, **arguments)

    return now


def test_nothing_is_done_where_everything_is_read(engine, run):
    assert run()["changed"] is False
    assert engine.commands() == []


def test_changed_file_reloads_its_module_once(engine, run):
    engine.write("queues.conf")
    assert (run()["modules"], engine.commands()) == (["app_queue"], ["module reload app_queue"])
    assert (run()["changed"], engine.commands()) == (False, [])


def test_renewed_certificate_reloads_each_of_its_readers(engine, run):
    """Though each is reloaded by a run of its own; Asterisk reads a file again only if its time is new."""
    certificate = str(engine.path / "certificate.pem")
    engine.write("certificate.pem")
    readers = [
        {"name": "http.conf", "reload": "http", "also": [certificate]},
        {"name": "queues.conf", "reload": "res_pjsip", "also": [certificate]},
    ]
    for reader in readers:
        engine.answer(f"Module '{reader['reload']}' reloaded successfully.")
        old = os.stat(engine.path / reader["name"]).st_mtime_ns
        done = run(files=[reader])
        assert (done["modules"], done["files"]) == ([reader["reload"]], [f"{certificate} ({reader['reload']})"])
        assert os.stat(engine.path / reader["name"]).st_mtime_ns > old
        assert run(files=[reader])["changed"] is False


def test_file_read_at_start_restarts_once(engine, run):
    engine.write("modules.conf")
    engine.write("queues.conf")
    assert (run()["action"], engine.commands()) == ("restarted", ["restart"])
    assert (run()["changed"], engine.commands()) == (False, [])


def test_restart_waits_for_calls_unless_they_may_end(engine, run):
    """The files stay unread, so the next run does it."""
    (engine.path / "calls").write_text("PJSIP/6001-00000001!a!6500!1!Up!VoiceMailMain!!6001!!!3!75!!pbx1-1.1\n")
    engine.write("modules.conf")
    engine.write("queues.conf")
    failed = run()
    assert "has to be restarted for " + str(engine.path / "modules.conf") + ", and 1 call is in" in failed["msg"]
    assert engine.commands() == []
    assert run(check=True)["action"] == "restarted"
    assert (run(end_calls=True)["action"], engine.commands()) == ("restarted", ["restart"])


def test_reload_does_not_wait_for_calls(engine, run):
    (engine.path / "calls").write_text("PJSIP/6001-00000001!a!6500!1!Up!VoiceMailMain!!6001!!!3!75!!pbx1-1.1\n")
    engine.write("queues.conf")
    assert run()["modules"] == ["app_queue"]


def test_changed_unit_restarts(engine, run):
    engine.state("active", reload="yes")
    assert (run()["action"], engine.commands()) == ("restarted", ["daemon-reload", "restart"])


@pytest.mark.parametrize("active", ["inactive", "failed", "activating"])
def test_service_that_does_not_run_is_started_if_asked(engine, run, active):
    engine.state(active)
    assert (run(start=False)["changed"], engine.commands()) == (False, [])
    assert (run()["action"], engine.commands()) == ("started", ["restart"])


def test_missing_directory_restarts(engine, run):
    assert run(directories=[str(engine.path / "gone")])["action"] == "restarted"


def test_missing_log_is_opened_again(engine, run):
    (engine.path / "messages").unlink()
    engine.answer("Module 'logger' reloaded successfully.")
    assert run()["modules"] == ["logger"]


def test_check_mode_reports_and_does_nothing(engine, run):
    engine.write("queues.conf")
    assert (run(check=True)["modules"], engine.commands()) == (["app_queue"], [])
    assert run()["changed"] is True


@pytest.mark.parametrize(
    "answer",
    [
        "The module 'app_queue' reported a reload failure",
        "No such module 'app_queue'",
        "Asterisk cannot reload a module yet; request queued",
        "",
    ],
)
def test_failed_reload_fails_again_in_the_next_run(engine, run, answer):
    engine.write("queues.conf")
    engine.answer(answer)
    for _run in range(2):
        failed = run()
        assert failed["failed"] and answer in failed["msg"], failed
    engine.answer("Module 'app_queue' reloaded successfully.")
    assert run()["modules"] == ["app_queue"]


def test_error_logged_during_a_reload_fails_the_run(engine, run):
    engine.write("queues.conf")
    (engine.path / "error").write_text(REFUSED)
    failed = run()
    assert failed["failed"] and failed["msg"].count("Could not create an object") == 1, failed


def test_hung_asterisk_fails_within_the_timeout(engine, run):
    (engine.path / "hung").touch()
    start = time.monotonic()
    assert "did not answer on its control socket within 1 s" in run()["msg"]
    assert time.monotonic() - start < 3


def test_refused_control_socket_fails(engine, run):
    (engine.path / "bin/asterisk").write_text("#!/bin/sh\necho Unable to connect to remote asterisk\nexit 1\n")
    assert "refuses its control socket (Unable to connect to remote asterisk)" in run()["msg"]


@pytest.fixture
def container(engine, monkeypatch):
    """A function that has Asterisk start in another container, without systemd here: it makes its socket anew."""
    path = engine.path / "asterisk.ctl"
    monkeypatch.setattr(asterisk_service, "BOOTED", str(engine.path / "none"))
    monkeypatch.setattr(asterisk_service, "SOCKET", str(path))
    opened = []

    def start() -> None:
        for server in opened:
            server.close()
        path.unlink(missing_ok=True)
        opened[:] = [socket.socket(socket.AF_UNIX)]
        opened[0].bind(str(path))
        opened[0].listen(50)

    yield start
    for server in opened:
        server.close()


def test_container_reloads_what_changed_once(engine, run, container):
    container()
    assert not run()["changed"]
    time.sleep(0.02)
    engine.write("queues.conf")
    assert run()["modules"] == ["app_queue"]
    assert engine.commands() == ["module reload app_queue"]
    assert not run()["changed"] and engine.commands() == []


def test_container_restarts_asterisk_in_its_place(engine, run, container):
    container()
    run()
    time.sleep(0.02)
    engine.write("modules.conf")
    timer = threading.Timer(0.3, container)
    timer.start()
    done = run()
    timer.join()
    assert done["action"] == "restarted" and engine.commands() == ["core restart now"]
    assert not run()["changed"]


def test_container_that_does_not_restart_fails(engine, run, container):
    container()
    run()
    time.sleep(0.02)
    engine.write("modules.conf")
    assert "does not restart within 1 s; see the log of its container" in run()["msg"]


def test_container_that_does_not_run_is_left_alone(engine, run, container):
    assert run() == {**run(), "changed": False, "action": ""}
    assert engine.commands() == []


def switched(engine, on: bool, **more) -> list[dict]:
    """The files of a module that is on or off, as they are written then."""
    (engine.path / "modules_x.conf").write_text(f"{on}\n")
    (engine.path / "cel.conf").write_text(f"{on}\n")
    (engine.path / "cel_x.conf").write_text("1\n")
    files = [{"name": "modules_x.conf", "loads": {"cel_x": on}}, {"name": "cel.conf", "reload": "cel"}]
    return files + [{"name": "cel_x.conf", "reload": "cel_x", **more}] * on


def test_module_is_loaded_and_unloaded_without_a_restart(engine, run):
    engine.answer("Module 'cel' reloaded successfully.")
    files = switched(engine, True, restart=True)
    assert (run(check=True, files=files)["action"], engine.commands()) == ("reloaded", [])
    done = run(files=files)
    assert (done["action"], done["modules"]) == ("reloaded", ["cel_x", "cel"])
    # Loaded before there are events, and unloaded when there are none.
    assert engine.commands() == ["module load cel_x", "module reload cel"]
    assert (run(files=files)["changed"], engine.commands()) == (False, [])
    files = switched(engine, False)
    assert run(files=files)["modules"] == ["cel_x", "cel"]
    assert engine.commands() == ["module reload cel", "module unload cel_x"]
    assert (run(files=files)["changed"], engine.commands()) == (False, [])


def test_module_that_somebody_unloaded_is_loaded_again(engine, run):
    engine.answer("Module 'cel' reloaded successfully.")
    files = switched(engine, True)
    run(files=files)
    engine.commands()
    (engine.path / "shown").write_text("")
    assert run(files=files)["modules"] == ["cel_x"]
    assert engine.commands() == ["module load cel_x"]


@pytest.mark.parametrize(("restart", "command"), [(True, "restart"), (False, "module reload cel_x")])
def test_changed_file_of_a_loaded_module_is_read(engine, run, restart, command):
    engine.answer("Module 'cel' reloaded successfully.")
    files = switched(engine, True, restart=restart)
    run(files=files)
    engine.commands()
    engine.write("cel_x.conf")
    run(files=files)
    assert engine.commands() == [command]


def test_module_that_does_not_load_fails(engine, run):
    engine.answer("Module 'cel' reloaded successfully.")
    program = (engine.path / "bin/asterisk").read_text()
    (engine.path / "bin/asterisk").write_text(program.replace('"module load "*)', '"no load "*)'))
    failed = run(files=switched(engine, True))
    assert failed["failed"] and "did not take its new files" in failed["msg"]
