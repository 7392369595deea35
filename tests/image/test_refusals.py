"""What containers do with volumes and secrets that are not as they should be: a sentence, and no start."""

from __future__ import annotations

import time

import pytest
from conftest import NAME, engine
from volumes import Copy, script


@pytest.fixture
def pbx(info):
    copy = Copy("pbx")
    yield copy
    copy.remove()


@pytest.fixture
def database(info):
    copy = Copy("database", copied=False)
    yield copy
    copy.remove()


@pytest.fixture
def records(info):
    copy = Copy("records")
    yield copy
    copy.remove()


@pytest.fixture
def events(info):
    copy = Copy("events")
    yield copy
    copy.remove()


def test_missing_secret_is_refused(pbx):
    pbx.change("sed -i '0,/^password = .*/s//password =/' /etc/asterisk/pjsip.conf")
    assert "a secret in /etc/asterisk/pjsip.conf is missing" in pbx.refusal()


def test_missing_key_of_the_certificate_is_refused(pbx):
    pbx.change("rm /etc/ssl/labredes/key.pem")
    assert "the key /etc/ssl/labredes/key.pem is missing" in pbx.refusal()


def test_missing_secret_of_events_is_refused(events):
    events.change(": >/etc/labredes-events/ami_secret")
    assert "/etc/labredes-events/ami_secret is missing" in events.refusal()


def test_missing_secret_of_records_is_refused(records):
    records.change("rm /etc/labredes-cdr/pgpass")
    assert "/etc/labredes-cdr/pgpass is missing" in records.refusal()


@pytest.mark.parametrize("volume", ["spool", "log", "run"])
def test_unwritable_volume_is_refused(pbx, volume):
    words = pbx.refusal(read_only=volume)
    assert "is not writable for user 5060; mount it without the option ro" in words


@pytest.mark.parametrize("volume", ["records-data", "records-run"])
def test_unwritable_volume_of_the_records_is_refused(records, volume):
    assert "is not writable; mount it without the option ro" in records.refusal(read_only=volume)


@pytest.mark.parametrize("volume", ["events-run", "events-state"])
def test_unwritable_volume_of_events_is_refused(events, volume):
    assert "is not writable for user 8888" in events.refusal(read_only=volume)


@pytest.mark.parametrize("path", ["/var/spool/asterisk", "/var/spool/asterisk/voicemail", "/var/log/asterisk"])
def test_wrong_owner_is_refused_with_the_command(pbx, path):
    pbx.change(f"chown 1234:1234 {path}")
    assert f"{path} belongs to user 1234, not to 5060 as Asterisk runs; run chown -R 5060:5060" in pbx.refusal()


def test_configuration_of_another_group_is_refused(pbx):
    pbx.change("chgrp 0 /etc/asterisk")
    assert "/etc/asterisk cannot be entered by user 5060; give its volume the group 5060" in pbx.refusal()


def test_volume_of_a_newer_release_is_refused(pbx):
    pbx.change("echo 99.0.0 >/var/spool/asterisk/.labredes-release")
    assert "was last used by Asterisk 99.0.0, which is newer than" in pbx.refusal()


def test_port_that_is_taken_is_refused(pbx):
    words = pbx.refusal(f"--network=container:{NAME}-network")
    assert "is taken by another program of this host or network" in words


def test_database_that_is_not_there_yet_is_waited_for(pbx):
    pbx.change("rm -f /run/labredes-cdr/.s.PGSQL.*")
    pbx.start("--network=none")
    end = time.monotonic() + 20
    while "waiting for" not in pbx.words() and time.monotonic() < end:
        time.sleep(0.5)
    sentence = "waiting for the table cdr of the database (labredes-records does not run); waited 0 s."
    assert pbx.words() == f"labredes-pbx: {sentence}\n" and pbx.running()


def test_journal_that_is_not_there_yet_is_waited_for(pbx):
    pbx.change("rm -f /var/lib/labredes-cdr/journal.db*")
    pbx.start("--network=none")
    end = time.monotonic() + 20
    while "waiting for" not in pbx.words() and time.monotonic() < end:
        time.sleep(0.5)
    assert "waiting for the journal /var/lib/labredes-cdr/journal.db" in pbx.words() and pbx.running()


def test_database_of_another_version_is_refused(database):
    database.change("mkdir /var/lib/postgresql/99; chown 5432 /var/lib/postgresql/99")
    assert "is of PostgreSQL 99, and this image has" in database.refusal()


@pytest.mark.parametrize("volume", ["database-data", "database-etc", "database-run"])
def test_unwritable_volume_of_the_database_is_refused(database, volume):
    assert "is not writable" in database.refusal(read_only=volume)


def test_wrong_owner_of_the_database_is_refused(database):
    # An empty volume gets the owner that the directory has in the image, by docker.
    database.change("touch /var/lib/postgresql/kept; chown 1234 /var/lib/postgresql")
    assert "/var/lib/postgresql belongs to user 1234, not to 5432" in database.refusal()


def test_wrong_owner_of_the_journal_is_refused(records):
    records.change("chown 1234 /var/lib/labredes-cdr")
    assert "/var/lib/labredes-cdr belongs to user 1234, not to 5433" in records.refusal()


@pytest.mark.parametrize("path", ["/run/labredes-events", "/var/lib/labredes-events"])
def test_wrong_owner_of_events_is_refused(events, path):
    events.change(f"touch {path}/kept; chown 1234:1234 {path}; chmod 0700 {path}")
    assert f"{path} is not writable for user 8888" in events.refusal()


def test_taken_published_port_is_one_sentence(info):
    done = script(
        "import compose, shell, yaml\n"
        "described = yaml.safe_load(compose.FILE.read_text())['services']['network']\n"
        "try: compose.check_ports(described['ports'])\n"
        "except shell.LabError as error: print(error)\n"
    )
    assert "cannot be published (Address already in use); stop the program that has it" in done.stdout, done
    assert len(done.stdout.splitlines()) == 1


def test_refused_start_is_repeated_with_its_sentence(pbx):
    """As the restart policy has it: never without a word."""
    pbx.change("rm /etc/asterisk/asterisk.conf")
    pbx.start("--restart=unless-stopped")
    end = time.monotonic() + 20
    while pbx.words().count("/etc/asterisk has no asterisk.conf") < 3 and time.monotonic() < end:
        time.sleep(0.5)
    engine("stop", "-t=1", pbx.name)
    lines = pbx.words().splitlines()
    assert len(lines) >= 3 and len(set(lines)) == 1
