"""What is older than it is to be kept is removed: recordings, messages, records; and nothing else."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import rendering
from unit_exposure import check_exposure

ROLE = rendering.ROLES / "retention"
PROGRAM = ROLE / "files/labredes_retention.py"
DEBIAN = rendering.FACTS["Debian 12"]
NOW = time.time()
DAY = 86400
SESSION = (
    "PJSIP/6001-00000001!from-internal!6500!5!Up!{}!6001@from-internal,s!6001!!!3!7!!1790000000.1\n"
    "PJSIP/6002-00000002!from-internal!6003!2!Up!Dial!PJSIP/6003!6002!!!3!9!!1790000000.2\n"
)


@pytest.fixture
def retention(monkeypatch, tmp_path):
    """The program as a module, on a host whose Asterisk does not run."""
    spec = importlib.util.spec_from_file_location("labredes_retention", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SOCKET", str(tmp_path / "asterisk.ctl"))
    monkeypatch.setattr(module, "LOCKED", 0.2)
    monkeypatch.setattr(module, "PATIENCE", 0)
    return module


@pytest.fixture
def mailbox(tmp_path):
    """A function that leaves a message of some days in a folder: its name is in both of its files."""

    def leave(folder: str, number: int, days: float, suffixes=("wav",), **more) -> None:
        place = tmp_path / "voicemail/from-internal/6001" / folder
        place.mkdir(parents=True, exist_ok=True)
        name = more.get("name", f"{folder}-{number}")
        text = f";\n[message]\norigmailbox=6001\norigtime={int(NOW - days * DAY)}\nduration=2\nmsg_id={name}\n"
        (place / f"msg{number:04d}.txt").write_text(more.get("text", text))
        for suffix in suffixes:
            (place / f"msg{number:04d}.{suffix}").write_text(name)

    return leave


def messages(tmp_path, folder: str = "INBOX") -> list[str]:
    """The messages of a folder in their order; each has to have its own sound, and no number is left out."""
    place = tmp_path / "voicemail/from-internal/6001" / folder
    texts = sorted(place.glob("msg*.txt"))
    assert [path.name for path in texts] == [f"msg{number:04d}.txt" for number in range(len(texts))]
    names = [re.search("msg_id=(.*)", path.read_text())[1] for path in texts]
    for path, name in zip(texts, names, strict=True):
        assert path.with_suffix(".wav").read_text() == name
    sounds = {path.name.split(".")[0] for path in place.glob("msg*.[!t]*")}
    assert sounds == {path.name.split(".")[0] for path in texts}
    assert not list(place.glob(".lock*"))
    return names


def test_old_messages_go_and_the_others_move_up(retention, mailbox, tmp_path):
    for number, days in enumerate([50, 1, 40, 2, 31, 3]):
        mailbox("INBOX", number, days, suffixes=("wav", "WAV"))
    for folder in ("Old", "Urgent", "Work", "Cust5", "Deleted"):
        mailbox(folder, 0, 29)
        mailbox(folder, 1, 31)
    count, busy, failed = retention.remove_messages(str(tmp_path / "voicemail"), NOW - 30 * DAY)
    assert (count, busy, failed) == (8, [], [])
    assert messages(tmp_path) == ["INBOX-1", "INBOX-3", "INBOX-5"]
    for folder in ("Old", "Urgent", "Work", "Cust5", "Deleted"):
        assert messages(tmp_path, folder) == [f"{folder}-0"]


def test_greetings_and_what_is_being_recorded_stay(retention, mailbox, tmp_path):
    place = tmp_path / "voicemail/from-internal/6001"
    for folder in ("tmp", "unavail", "busy", "greet", "temp"):
        mailbox(folder, 0, 500)
    files = [place / name for name in ("unavail.wav", "busy.wav", "greet.wav", "secret.conf")]
    for path in files:
        path.write_text("x")
        os.utime(path, (0, 0))
    assert retention.remove_messages(str(tmp_path / "voicemail"), NOW)[0] == 0
    assert all(path.exists() for path in files) and len(list(place.glob("*/msg0000.*"))) == 10


def test_message_without_a_time_has_that_of_its_file(retention, mailbox, tmp_path):
    mailbox("INBOX", 0, 0, text="[message]\norigtime=\nmsg_id=a\n", name="a")
    mailbox("INBOX", 1, 0, text="[message]\nmsg_id=b\n", name="b")
    mailbox("INBOX", 2, 0, text="\norigtime=0\n[message]\nmsg_id=c\n", name="c")
    old = tmp_path / "voicemail/from-internal/6001/INBOX/msg0001.txt"
    os.utime(old, (NOW - 40 * DAY, NOW - 40 * DAY))
    assert retention.remove_messages(str(tmp_path / "voicemail"), NOW - 30 * DAY)[0] == 1
    assert messages(tmp_path) == ["a", "c"]


def test_folder_that_asterisk_has_locked_is_left(retention, mailbox, tmp_path):
    mailbox("INBOX", 0, 40)
    mailbox("Old", 0, 40)
    lock = tmp_path / "voicemail/from-internal/6001/INBOX/.lock"
    lock.write_text("")
    count, busy, _failed = retention.remove_messages(str(tmp_path / "voicemail"), NOW - 30 * DAY)
    assert count == 1 and busy == [f"{lock.parent} is locked"]
    assert os.listdir(lock.parent) and lock.exists()
    lock.unlink()
    assert messages(tmp_path) == ["INBOX-0"]


@pytest.mark.parametrize(
    ("program", "removed"),
    [
        ("cat shown", True),
        ("cat shown | sed s/NAME/Dial/", True),
        ("cat shown | sed s/NAME/VoiceMail/", True),
        ("cat shown | sed s/NAME/VoiceMailMain/", False),
        ("cat shown | sed s/NAME/VoiceMailPlayMsg/", False),
        ("exit 1", False),
        ("sleep 9", False),
    ],
)
def test_mailbox_that_is_open_is_left(retention, mailbox, tmp_path, monkeypatch, program, removed):
    mailbox("INBOX", 0, 40)
    (tmp_path / "shown").write_text(SESSION.format("NAME"))
    (tmp_path / "asterisk").write_text(
        f"#!/bin/sh\ncd {tmp_path}\ntest -e voicemail/*/*/*/.lock || exit 0\n{program}\n"
    )
    (tmp_path / "asterisk").chmod(0o755)
    monkeypatch.setattr(retention, "ASTERISK", str(tmp_path / "asterisk"))
    monkeypatch.setattr(retention, "ANSWER", 0.5)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(retention.SOCKET)
        server.listen()
        count, busy, failed = retention.remove_messages(str(tmp_path / "voicemail"), NOW - 30 * DAY)
    assert (count, busy, failed) == ((1, [], []) if removed else (0, ["somebody listens to voicemail"], []))
    assert messages(tmp_path) == ([] if removed else ["INBOX-0"])


# Ends the program before its n-th change of a file.
KILL = """
import os, signal, sys
sys.path.insert(0, {directory!r})
import labredes_retention as m
m.SOCKET, left = "/nonexistent", [{count}]
def before(real):
    def call(*given, **named):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)
    return call
for name in ("unlink", "link", "rename"):
    setattr(os, name, before(getattr(os, name)))
m.remove_messages({voicemail!r}, {limit})
"""


@pytest.mark.parametrize("after", ["kill", "power cut"])
def test_killed_program_leaves_no_half_message(retention, mailbox, tmp_path, after):
    wanted, count, code = ["INBOX-1", "INBOX-3"], 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        count += 1
        subprocess.run(["rm", "-rf", tmp_path / "voicemail"], check=True)
        for number, days in enumerate([50, 1, 40, 2]):
            mailbox("INBOX", number, days, suffixes=("wav", "gsm"))
        limit = NOW - 30 * DAY
        text = KILL.format(
            directory=str(PROGRAM.parent), count=count, voicemail=str(tmp_path / "voicemail"), limit=limit
        )
        code = subprocess.run([sys.executable, "-B", "-c", text], check=False).returncode
        place = tmp_path / "voicemail/from-internal/6001/INBOX"
        # At no moment is a message without its sound.
        for path in place.glob("msg*.txt"):
            name = re.search("msg_id=(.*)", path.read_text())[1]
            assert path.with_suffix(".wav").read_text() == path.with_suffix(".gsm").read_text() == name, count
        if after == "kill":
            for folder in retention.folders(str(tmp_path / "voicemail")):
                folder.recover()
        else:
            (place / ".lock").unlink(missing_ok=True)
        retention.remove_messages(str(tmp_path / "voicemail"), limit)
        assert messages(tmp_path) == wanted, count
    assert code == 0 and count > 12


def test_lock_of_asterisk_is_not_given_back(retention, mailbox, tmp_path):
    mailbox("INBOX", 0, 40)
    place = tmp_path / "voicemail/from-internal/6001/INBOX"
    (place / ".lock").write_text("")
    (place / ".lock-labredes").write_text("")
    [folder] = retention.folders(str(tmp_path / "voicemail"))
    assert not folder.recover() and (place / ".lock").exists()


def test_old_recordings_and_their_directories_go(retention, tmp_path):
    root = tmp_path / "monitor"
    for name, days in (("2026/01/old.wav", 40), ("2026/02/new.wav", 1), ("2026/02/old.wav", 31), ("old.wav", 90)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
        os.utime(root / name, (NOW, NOW - days * DAY))
    (root / "empty").mkdir()
    (root / "new").mkdir()
    (root / "link.wav").symlink_to(tmp_path / "elsewhere")
    os.utime(root / "link.wav", (0, 0), follow_symlinks=False)
    for name in ("2026/01", "empty"):
        os.utime(root / name, (NOW, NOW - 40 * DAY))
    os.utime(root, (NOW, NOW - 40 * DAY))
    assert retention.remove_recordings([str(root), str(tmp_path / "none")], NOW - 30 * DAY) == 3
    left = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert left == {"2026", "2026/02", "2026/02/new.wav", "new", "link.wav"}


@pytest.fixture
def configuration(server, tmp_path, monkeypatch):
    """The program's file as the role writes it, for a database of this machine, as a function of days."""
    monkeypatch.setenv("PGPASSFILE", "/dev/null")

    def write(**days):
        more = {"labredes_database_host": "127.0.0.1", "labredes_database_port": server.port, **days}
        more.update(asterisk_system_name="pbx_1", labredes_database_sslmode="disable")
        text = rendering.render(
            ROLE / "templates/etc/labredes-retention/retention.conf.j2",
            rendering.variables(DEBIAN, more, tmp_path / "secrets", "retention"),
        )
        text = text.replace("/var/spool/asterisk", str(tmp_path)).replace("/etc/labredes-retention", str(tmp_path))
        (tmp_path / "retention.conf").write_text(text)
        parsed = configparser.ConfigParser(interpolation=None)
        parsed.read_string(text)
        return parsed

    server.query("TRUNCATE cdr; TRUNCATE cel")
    for name, date, rest in (("cdr", "calldate", "sequence"), ("cel", "eventtime", "amaflags")):
        server.query(
            f"INSERT INTO {name} ({date}, uniqueid, {rest})"
            " SELECT now() AT TIME ZONE 'UTC' - make_interval(days => n, hours => 1), host || '-' || n, n"
            " FROM generate_series(0, 99) n, unnest(ARRAY['pbx_1', 'pbx_10', 'pbxx1']) host"
        )
    yield write
    server.query("TRUNCATE cdr; TRUNCATE cel")


def left(server, table: str) -> list[tuple]:
    """How many records of each exchange are left."""
    return server.query(f"SELECT split_part(uniqueid, '-', 1), count(*) FROM {table} GROUP BY 1 ORDER BY 1")


def test_old_records_of_this_exchange_go(retention, configuration, server, monkeypatch, capfd):
    monkeypatch.setattr(retention, "BATCH", 7)
    assert retention.run(configuration(retention_record_days=30)) == 0
    for table in ("cdr", "cel"):
        assert left(server, table) == [("pbx_1", 30), ("pbx_10", 100), ("pbxx1", 100)]
    assert "<5>Removed 70 channel events, 70 call records.\n" in capfd.readouterr().err
    assert retention.run(configuration(retention_record_days=30)) == 0
    assert capfd.readouterr().err == ""


def test_nothing_goes_by_default(retention, configuration, server, mailbox, tmp_path):
    mailbox("INBOX", 0, 9999)
    (tmp_path / "monitor").mkdir()
    (tmp_path / "monitor/old.wav").write_text("x")
    os.utime(tmp_path / "monitor/old.wav", (0, 0))
    assert retention.run(configuration()) == 0
    assert left(server, "cdr") == [("pbx_1", 100), ("pbx_10", 100), ("pbxx1", 100)]
    assert messages(tmp_path) == ["INBOX-0"] and (tmp_path / "monitor/old.wav").exists()


def test_records_go_without_a_table_of_events(retention, configuration, server):
    server.query("ALTER TABLE cel RENAME TO gone")
    try:
        assert retention.run(configuration(retention_record_days=90)) == 0
    finally:
        server.query("ALTER TABLE gone RENAME TO cel")
    assert left(server, "cdr")[0] == ("pbx_1", 90)


def test_database_that_does_not_answer_holds_up_nothing_else(retention, configuration, mailbox, tmp_path, capfd):
    mailbox("INBOX", 0, 40)
    parsed = configuration(retention_record_days=30, retention_message_days=30, labredes_database_port=1)
    parsed["records"]["port"] = "1"
    assert retention.run(parsed) == 1
    assert messages(tmp_path) == []
    written = capfd.readouterr().err
    assert "<5>Removed 1 messages.\n" in written and "<3>Call records cannot be removed (" in written


def test_commands_read_the_file_of_the_role(retention, configuration, mailbox, tmp_path):
    mailbox("INBOX", 0, 40)
    configuration(retention_message_days=30)
    assert retention.main(["run", f"--config={tmp_path}/retention.conf"]) == 0
    assert messages(tmp_path) == []
    mailbox("INBOX", 0, 1)
    place = tmp_path / "voicemail/from-internal/6001/INBOX"
    (place / ".lock-labredes").write_text("")
    os.link(place / ".lock-labredes", place / ".lock")
    assert retention.main(["recover", f"--config={tmp_path}/retention.conf"]) == 0
    assert messages(tmp_path) == ["INBOX-0"]


def test_exposure_of_the_service_is_at_most_two(tmp_path):
    more = rendering.variables(DEBIAN, {}, tmp_path, "retention")
    text = rendering.render(ROLE / "templates/etc/systemd/system/labredes-retention.service.j2", more)
    check_exposure(text, "labredes-retention.service", tmp_path)


@pytest.mark.parametrize("days", [0, "0", 30, "30"])
def test_asterisk_looks_for_removed_messages_where_some_are(days, tmp_path):
    more = rendering.variables(DEBIAN, {"retention_message_days": days}, tmp_path, "pbx")
    text = rendering.render(rendering.ROLES / "pbx/templates/etc/asterisk/voicemail.conf.j2", more)
    assert ("\npollmailboxes = yes\npollfreq = 10\n" in text) == bool(int(days))


@pytest.mark.parametrize(
    ("days", "on"), [({}, False), ({"retention_message_days": 1}, True), ({"retention_record_days": "1"}, True)]
)
def test_timer_is_there_where_something_is_removed(days, on, tmp_path):
    more = rendering.variables(DEBIAN, days, tmp_path, "retention")
    assert bool(rendering.evaluate("{{ __retention_on | bool }}", more)) == on
