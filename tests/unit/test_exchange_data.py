"""Modules exchange_backup and exchange_restore on directories of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from ansible_collections.labredes.pbx.plugins.module_utils import exchange_archive, exchange_data
from ansible_collections.labredes.pbx.plugins.modules import exchange_backup, exchange_restore
from exchange_host import Host, message
from records import JOURNAL

# Writes as Asterisk does, which waits for no lock: a commit that fails is rolled back.
WRITER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
end, failed, number = time.time() + float(sys.argv[2]), 0, 0
while time.time() < end:
    number += 1
    try:
        database.execute("BEGIN")
        database.execute("INSERT OR REPLACE INTO astdb VALUES ('/counter', ?)", (str(number),))
        database.execute("COMMIT")
    except sqlite3.OperationalError:
        failed += 1
        if database.in_transaction:
            database.execute("ROLLBACK")
    time.sleep(0.002)
print(failed)
"""


@pytest.fixture
def host(tmp_path):
    """A function that makes a host."""
    return lambda name: Host(tmp_path / name)


@pytest.fixture
def save(run_module, tmp_path):
    """A function that backs a host up; gives the counts."""

    def run(host: Host) -> dict:
        (tmp_path / "out").mkdir(exist_ok=True)
        files = {"tls/key": str(host.directory / "key"), "ssh/key": str(host.directory / "hostkey")}
        return run_module(exchange_backup, directory=str(tmp_path / "out"), files=files, **host.options())["counts"]

    return run


@pytest.fixture
def restore(run_module, tmp_path):
    """A function that restores to a host; gives the module's answer."""

    def run(host: Host, **options: object) -> dict:
        own = {"numbers": ["6001", "6002"], **host.options(), **options}
        return run_module(exchange_restore, archive=str(tmp_path / "out/exchange.tar"), **own)

    return run


@pytest.fixture
def old(host):
    """A host with some of everything."""
    old = host("old")
    box = old.mail / "from-internal/6001"
    message(box / "INBOX", "msg0000", "16-a")
    message(box / "Old", "msg0000", "15-b")
    (box / "unavail.wav").write_bytes(b"greeting")
    (box / "secret.conf").write_text("[general]\npassword = 274913\n")
    (box / "INBOX/.lock").write_text("")
    (old.spool / "monitor").mkdir()
    (old.spool / "monitor/talk.wav").write_bytes(b"talk")
    old.put("/REDIRECT/6001", "6002")
    old.put("/registrar/contact/6001;@aa", "{}")
    old.wait("old-1.1", b"Jos\xe9 \xff\x00")
    old.query("INSERT INTO rejected (at, error, record) VALUES ('2026', 'too long', '{}')")
    return old


def test_channel_events_that_waited_come_back(old, host, save, restore):
    old.query("CREATE TABLE cel_1 (AcctId INTEGER PRIMARY KEY AUTOINCREMENT, uniqueid TEXT, eventtype TEXT)")
    old.query("INSERT INTO cel_1 VALUES (9, 'old-1.1', 'ANSWER')")
    assert save(old)["waiting"] == 2
    new = host("new")
    restore(new)
    restore(new)
    assert new.query("SELECT uniqueid, eventtype FROM cel_1") == [(b"old-1.1", b"ANSWER")]


def test_everything_comes_back_to_a_new_host_once(old, host, save, restore):
    counts = save(old)
    assert (counts["messages"], counts["greetings"], counts["pins"]) == ({"6001": 2}, 1, 1)
    assert (counts["forwards"], counts["waiting"], counts["rejected"], counts["monitor"]) == (1, 1, 1, 1)
    new = host("new")
    would = restore(new, check=True)
    assert would["changed"] and new.files() == {} and new.values() == {}
    done = restore(new)
    assert done["restored"] == would["restored"]
    assert new.files() == old.files()
    assert new.values() == old.values()
    assert new.query(f"SELECT uniqueid, clid FROM {JOURNAL['table']}") == [(b"old-1.1", b"Jos\xe9 \xff\x00")]
    assert new.query("SELECT error FROM rejected") == [(b"too long",)]
    assert not restore(new)["changed"]
    new.query(f"DELETE FROM {JOURNAL['table']}")  # it was forwarded
    assert not restore(new)["changed"]


def test_files_have_owner_mode_and_time_of_the_archive(old, host, save, restore):
    path = old.mail / "from-internal/6001/secret.conf"
    os.chmod(path, 0o640)
    os.utime(path, (1600000000, 1600000000))
    os.chmod(path.parent, 0o711)
    os.chmod(old.spool / "monitor", 0o2770)
    save(old)
    new = host("new")
    restore(new)
    assert path.parent.stat().st_mode & 0o7777 == (new.mail / "from-internal/6001").stat().st_mode & 0o7777 == 0o711
    assert (new.spool / "monitor").stat().st_mode & 0o7777 == 0o2770
    status = (new.mail / "from-internal/6001/secret.conf").stat()
    assert (status.st_mode & 0o777, status.st_mtime, status.st_uid) == (0o640, 1600000000, os.geteuid())


def test_newer_messages_stay_and_old_ones_follow_them(old, host, save, restore):
    save(old)
    new = host("new")
    box = new.mail / "from-internal/6001"
    message(box / "INBOX", "msg0000", "17-new")
    message(box / "INBOX", "msg0001", "15-b")  # was in another folder
    before = new.files()
    restore(new)
    after = new.files()
    assert before.items() <= after.items()
    assert after["voicemail/from-internal/6001/INBOX/msg0002.wav"] == b"sound16-a"
    assert sorted(name for name in after if "Old" in name) == []
    assert not restore(new)["changed"]


def test_newer_greeting_pin_and_forward_stay_unless_wanted(old, host, save, restore):
    box = old.mail / "from-internal/6001"
    for name in ("unavail.wav", "secret.conf"):
        os.utime(box / name, (1600000000, 1600000000))
    save(old)
    new = host("new")
    other = new.mail / "from-internal/6001"
    other.mkdir(parents=True)
    (other / "secret.conf").write_text("[general]\npassword = 835162\n")
    (other / "unavail.wav").write_bytes(b"earlier")
    os.utime(other / "unavail.wav", (1500000000, 1500000000))
    new.put("/REDIRECT/6001", "6001")
    done = restore(new)
    assert "835162" in (other / "secret.conf").read_text()
    assert (other / "unavail.wav").read_bytes() == b"greeting"
    assert new.values()["/REDIRECT/6001"] == "6001"
    assert done["newer"] == [str(other / "secret.conf"), "database /REDIRECT/6001"]
    restore(new, replace_newer=True)
    assert "274913" in (other / "secret.conf").read_text()
    assert new.values()["/REDIRECT/6001"] == "6002"


def test_phone_that_has_registered_again_keeps_its_place(old, host, save, restore):
    save(old)
    new = host("new")
    new.put("/registrar/contact/6001;@bb", "{}")
    restore(new)
    assert "/registrar/contact/6001;@aa" not in new.values()


def test_other_phones_are_left_out_and_reported(old, host, save, restore):
    save(old)
    new = host("new")
    done = restore(new, numbers=["6002"])
    assert done["left_out"] == ["mailbox 6001", "forward of 6001"]
    assert list(new.files()) == ["monitor/talk.wav"]
    assert "/REDIRECT/6001" not in new.values()


def test_certificate_is_restored_to_another_host_alone(old, host, save, restore):
    save(old)
    new = host("new")
    own = {"files": {"tls/key": str(new.directory / "key")}, "witnesses": {"ssh/key": str(new.directory / "hostkey")}}
    (new.directory / "hostkey").write_text("host key of old")
    restore(new, **own)
    assert (new.directory / "key").read_text() == "key of new", "this host is the one of the archive"
    (new.directory / "hostkey").write_text("another")
    done = restore(new, **own)
    assert (new.directory / "key").read_text() == "key of old", done


def test_archive_cut_short_restores_nothing(old, host, save, restore, tmp_path):
    save(old)
    path, new = tmp_path / "out/exchange.tar", host("new")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    done = restore(new)
    assert done["failed"] and new.values() == {}, done
    assert done["msg"].startswith("The data cannot be restored: "), done


def test_path_that_leaves_its_directory_is_refused(old, host, save, restore, tmp_path):
    save(old)
    with tarfile.open(tmp_path / "out/exchange.tar", "a") as archive:
        archive.add(tmp_path / "old/key", "sounds/../../escaped")
    new = host("new")
    assert "leaves its directory" in restore(new)["msg"]
    assert new.files() == {}


def test_host_without_asterisk_is_refused(old, host, save, restore):
    save(old)
    new = host("new")
    new.astdb.unlink()
    assert restore(new)["msg"] == f"{new.astdb} is missing; run site.yml first, then restore."


def test_files_of_the_package_and_of_the_moment_are_left_out(old, save, monkeypatch, tmp_path):
    sounds = old.directory / "sounds/es"
    sounds.mkdir()
    (sounds / "beep.wav").write_bytes(b"beep")
    (sounds / "own.wav").write_bytes(b"own")
    (old.mail / "from-internal/6001/tmp").mkdir()
    (old.mail / "from-internal/6001/tmp/recording.wav").write_bytes(b"half")
    monkeypatch.setattr(exchange_data, "package_files", lambda _package: {str(sounds / "beep.wav")})
    save(old)
    with tarfile.open(tmp_path / "out/exchange.tar") as archive:
        names = archive.getnames()
    assert "sounds/es/own.wav" in names and "sounds/es/beep.wav" not in names
    assert not [name for name in names if "tmp" in name or "lock" in name]
    assert not (old.spool / ".labredes-backup").exists()


def test_message_that_moves_meanwhile_is_there_once(old, save, monkeypatch, tmp_path):
    box = old.mail / "from-internal/6001"
    real, calls = exchange_archive.listing, []

    def listing(directory):
        found = real(directory)
        if not calls:
            for suffix in ("txt", "wav"):
                os.rename(box / f"INBOX/msg0000.{suffix}", box / f"Old/msg0001.{suffix}")
        calls.append(found)
        return found

    monkeypatch.setattr(exchange_archive, "listing", listing)
    save(old)
    with tarfile.open(tmp_path / "out/exchange.tar") as archive:
        names = [name for name in archive.getnames() if name.endswith(".txt")]
    assert names == [f"voicemail/from-internal/6001/Old/msg000{number}.txt" for number in (0, 1)]


def test_two_backups_at_a_time_have_every_message(old, tmp_path):
    """That of the controller and the copy off the site hold a mailbox in the same place."""
    box = old.mail / "from-internal/6001"
    for number in range(10, 40):
        message(box / "INBOX", f"msg{number:04}", str(number))
    expected = len(list(box.rglob("*.txt")))
    begin = Barrier(2)

    def back_up(name: str) -> int:
        with tarfile.open(tmp_path / name, "w") as archive:
            begin.wait()
            for _time in range(5):
                exchange_archive.add_voicemail(archive, str(old.mail))
        with tarfile.open(tmp_path / name) as archive:
            return sum("/6001/" in member and member.endswith(".txt") for member in archive.getnames())

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(back_up, ("a.tar", "b.tar"))) == [5 * expected] * 2


def test_recording_that_grows_or_shrinks_is_whole_in_the_tar(tmp_path):
    path = tmp_path / "talk.wav"
    path.write_bytes(b"0123456789")
    for change in (b"01234567890123456789", b"012"):
        with tarfile.open(tmp_path / "x.tar", "w") as archive, path.open("rb") as stream:
            member = archive.gettarinfo(arcname="talk.wav", fileobj=stream)
            path.write_bytes(change)
            archive.addfile(member, exchange_archive.Exactly(stream, member.size))
            archive.add(__file__, "next")
        with tarfile.open(tmp_path / "x.tar") as archive:
            assert archive.getnames() == ["talk.wav", "next"]
        path.write_bytes(b"0123456789")


def test_asterisk_loses_no_value_while_its_database_is_copied(old, tmp_path):
    """SQLite's own backup interface takes a lock, which makes some of these commits fail."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, old.astdb, "2"], stdout=subprocess.PIPE, text=True)
    copies, end = 0, time.time() + 1.8
    while time.time() < end:
        exchange_data.copy_astdb(str(old.astdb), str(tmp_path / "copy"))
        assert exchange_data.astdb_values(str(tmp_path / "copy"))[b"/REDIRECT/6001"] == b"6002"
        copies += 1
    assert writer.communicate(timeout=20)[0].strip() == "0"
    assert copies > 20


def test_copy_during_which_a_value_was_set_is_made_again(old, tmp_path, monkeypatch):
    real, copies = exchange_data.shutil.copyfile, []

    def copyfile(source, target):
        real(source, target)
        if not copies:
            old.put("/REDIRECT/6002", "6001")
        copies.append(target)

    monkeypatch.setattr(exchange_data.shutil, "copyfile", copyfile)
    exchange_data.copy_astdb(str(old.astdb), str(tmp_path / "copy"))
    assert exchange_data.astdb_values(str(tmp_path / "copy"))[b"/REDIRECT/6002"] == b"6001"
    assert len(copies) == 2


def test_database_under_constant_writes_is_given_up(old, tmp_path):
    (old.directory / "astdb.sqlite3-journal").write_bytes(b"x")
    with pytest.raises(exchange_data.DataError, match="written without a pause"):
        exchange_data.copy_astdb(str(old.astdb), str(tmp_path / "copy"), seconds=0.2)


def test_damaged_database_is_refused(old, tmp_path):
    old.astdb.write_bytes(old.astdb.read_bytes()[:100] + b"\xff" * 4000)
    with pytest.raises(exchange_data.DataError, match="is damaged"):
        exchange_data.copy_astdb(str(old.astdb), str(tmp_path / "copy"))
