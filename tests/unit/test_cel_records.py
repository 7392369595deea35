"""Channel events (CEL): the files of early and late releases, and their way to PostgreSQL, each exactly once."""

from __future__ import annotations

import json
import re
import signal
import sqlite3

import asterisk_files
import pytest
import records
import rendering

ASTERISK = rendering.ROLES / "asterisk/templates/etc/asterisk"
DEBIAN = rendering.FACTS["Debian 12"]
KINDS = ["CHAN_START", "APP_START", "ANSWER", "BRIDGE_ENTER", "BRIDGE_EXIT", "HANGUP", "CHAN_END", "LINKEDID_END"]


def known(release: str, secrets, **description) -> dict:
    """The variables of role asterisk on an exchange with a release."""
    return rendering.variables(
        DEBIAN, {"asterisk_deb_version": f"1:{release}+pbx.0123456789ab", **description}, secrets, "asterisk"
    )


def event(number: int, kind: str = "ANSWER", **more) -> dict:
    """An event as Asterisk writes it."""
    return {
        "eventtype": kind,
        "eventtime": f"{records.BEGIN + number}.{number:06d}",
        "cid_num": "6001",
        "exten": "6002",
        "context": "from-internal",
        "channame": f"PJSIP/6001-{number:08x}",
        "appname": "Dial",
        "appdata": "PJSIP/6002,30",
        "amaflags": 3,
        "uniqueid": f"pbx1-{records.BEGIN + number}.{number}",
        "linkedid": f"pbx1-{records.BEGIN + number}.{number}",
        **more,
    }


@pytest.fixture
def forwarder(server, tmp_path):
    server.query("TRUNCATE cdr")
    server.query("TRUNCATE cel")
    made = records.Forwarder(tmp_path, server)
    made.prepare()
    yield made
    made.stop()


def write(forwarder, *events: dict) -> None:
    """Write events into the journal."""
    forwarder.write(*events, journal=records.EVENTS)


def test_early_release_takes_values_of_events(tmp_path):
    text = rendering.render(ASTERISK / "cel_sqlite3_custom.conf.j2", known("18.2.0", tmp_path))
    (section,) = asterisk_files.parse(text)
    assert section.name == "master" and section.get("fields") is None
    assert section.get("table") == records.EVENTS["table"]
    assert section.get("values") == (
        "'${eventtype}','${eventtime}','${userdeftype}','${CALLERID(name)}','${CALLERID(num)}','${CALLERID(ANI)}',"
        "'${CALLERID(RDNIS)}','${CALLERID(DNID)}','${CHANNEL(exten)}','${CHANNEL(context)}','${CHANNEL(channame)}',"
        "'${CHANNEL(appname)}','${CHANNEL(appdata)}','${CHANNEL(amaflags)}','${CHANNEL(accountcode)}',"
        "'${CHANNEL(peeraccount)}','${CHANNEL(uniqueid)}','${CHANNEL(linkedid)}','${CHANNEL(userfield)}',"
        "'${BRIDGEPEER}','${eventextra}'"
    )


def test_late_release_takes_fields_of_events(tmp_path):
    text = rendering.render(ASTERISK / "cel_sqlite3_custom.conf.j2", known("22.10.1", tmp_path))
    (section,) = asterisk_files.parse(text)
    assert section.get("values") is None
    assert section.get("fields") == (
        "eventtype,eventtime(double),userdeftype,name,num,ani,rdnis,dnid,exten,context,channame,appname,appdata,"
        "amaflags,accountcode,peeraccount,uniqueid,linkedid,userfield,peer,eventextra"
    )
    assert section.get("columns") == ",".join(f'"{name}"' for name in records.EVENTS["columns"])


@pytest.mark.parametrize("release", ["18.2.0", "22.10.1"])
@pytest.mark.parametrize("on", [True, False, "yes", "no"])
def test_module_of_events_is_named_where_they_are_on(release, on, tmp_path):
    more = known(release, tmp_path, labredes_cel_enabled=on)
    wanted = on in (True, "yes")
    text = rendering.render(ASTERISK / "modules_cel.conf.j2", more)
    assert re.findall(r"(?m)^load => (\w+)\.so$", text) == ["cel_sqlite3_custom"] * wanted
    # The other file stays the same, since a change of it restarts Asterisk.
    modules = rendering.render(ASTERISK / "modules.conf.j2", more)
    assert modules == rendering.render(ASTERISK / "modules.conf.j2", known(release, tmp_path))
    assert modules.endswith("\n#tryinclude modules_cel.conf\n")
    files = {file["name"]: file for file in rendering.evaluate("{{ __asterisk_files }}", more)}
    assert files["modules_cel.conf"]["loads"] == {"cel_sqlite3_custom": wanted}
    assert ("cel_sqlite3_custom.conf" in files) == wanted
    if wanted:
        assert files["cel_sqlite3_custom.conf"]["restart"] == (release == "18.2.0")
    (section,) = asterisk_files.parse(rendering.render(ASTERISK / "cel.conf.j2", more))
    assert section.get("enable") == ("yes" if wanted else "no")
    assert section.get("events") == ("ALL" if wanted else None)


def test_events_go_to_radius_as_before(tmp_path):
    more = known("22.10.1", tmp_path, asterisk_radius=True)
    general, radius = asterisk_files.parse(rendering.render(ASTERISK / "cel.conf.j2", more))
    assert (general.get("enable"), general.get("apps"), radius.name) == ("yes", "dial,queue", "radius")


def test_event_arrives_with_its_microseconds(forwarder, server):
    write(forwarder, event(7, cid_name='"Ana" O\'Higgins', extra='{"hangupcause":16}', peer="PJSIP/6002-1"))
    forwarder.start()
    forwarder.wait()
    [row] = server.query("SELECT eventtype, eventtime::text, cid_name, amaflags, uniqueid, peer, extra FROM cel")
    assert row == (
        "ANSWER",
        "2026-09-21 14:13:27.000007",
        '"Ana" O\'Higgins',
        3,
        "pbx1-1790000007.7",
        "PJSIP/6002-1",
        '{"hangupcause":16}',
    )


def test_events_of_one_call_arrive_in_their_order(forwarder, server):
    write(forwarder, *(event(1, kind, eventtime=f"{records.BEGIN}.{n:06d}") for n, kind in enumerate(KINDS)))
    forwarder.write(records.record(1))
    forwarder.start()
    forwarder.wait()
    assert [row[0] for row in server.query("SELECT eventtype FROM cel ORDER BY id")] == KINDS
    assert server.query("SELECT count(*) FROM cdr") == [(1,)]


KILL = """
import os, signal
real = m.Journal.remove
def remove(self, table, last, refused):
    if {when!r} == "after":
        real(self, table, last, refused)
    if table.startswith("cel_"):
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, table, last, refused)
m.Journal.remove = remove
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_service_neither_loses_nor_doubles_an_event(forwarder, server, when):
    write(forwarder, *(event(number) for number in range(1200)))
    forwarder.start(KILL.format(when=when))
    assert forwarder.process.wait(timeout=30) == -signal.SIGKILL
    assert 0 < server.query("SELECT count(*) FROM cel")[0][0] < 1200
    forwarder.start()
    forwarder.wait()
    assert server.query("SELECT count(*), count(DISTINCT eventtime) FROM cel") == [(1200, 1200)]
    assert forwarder.status()["rejected"] == 0


def test_same_event_of_another_content_is_kept_aside(forwarder, server):
    write(forwarder, event(1), event(1, appname="Queue"), event(1, "HANGUP"))
    forwarder.start()
    forwarder.wait()
    assert server.query("SELECT eventtype, appname FROM cel ORDER BY id") == [("ANSWER", "Dial"), ("HANGUP", "Dial")]
    shown = forwarder.run("rejected").stdout
    assert "another record has its uniqueid and eventtime and eventtype" in shown


def test_refused_event_comes_back_by_retry(forwarder, server):
    server.query("ALTER TABLE cel ADD CONSTRAINT short CHECK (length(appdata) < 20)")
    try:
        write(forwarder, event(1, appdata="x" * 30), event(2))
        forwarder.write(records.record(1, uniqueid=""))
        forwarder.start()
        forwarder.wait()
        assert server.query("SELECT count(*) FROM cel") == [(1,)]
        assert forwarder.status()["rejected"] == 2
    finally:
        server.query("ALTER TABLE cel DROP CONSTRAINT short")
    assert forwarder.run("retry").stdout == "2 records are tried again.\n"
    forwarder.wait()
    assert server.query("SELECT count(*) FROM cel") == [(2,)]
    assert forwarder.status()["rejected"] == 1


def test_missing_table_holds_up_events_alone(forwarder, server):
    server.query("ALTER TABLE cel RENAME TO gone")
    try:
        write(forwarder, event(1))
        forwarder.write(records.record(1))
        forwarder.start()
        records.until(lambda: 'relation "cel" does not exist' in forwarder.log.read_text())
        forwarder.write(records.record(2))
        records.until(lambda: server.query("SELECT count(*) FROM cdr") == [(2,)], seconds=2)
        state = forwarder.status()
        assert (state["waiting"], state["waiting_events"]) == (0, 1)
        records.until(lambda: json.loads(forwarder.status_file.read_text())["problem"])
    finally:
        server.query("ALTER TABLE gone RENAME TO cel")
    forwarder.wait()
    assert server.query("SELECT count(*) FROM cel") == [(1,)]


def test_text_of_a_caller_arrives_in_events(forwarder, server):
    write(forwarder, event(1, cid_name="José".encode()), event(2, cid_name=b"Jos\xe9"), event(3, cid_name=b"a" * 300))
    forwarder.start()
    forwarder.wait()
    assert [row[0] for row in server.query("SELECT cid_name FROM cel ORDER BY id")] == ["José", "José", "a" * 300]


def test_journal_of_an_earlier_release_gets_its_table(forwarder):
    with sqlite3.connect(forwarder.path) as connection:
        connection.execute(f"DROP TABLE {records.EVENTS['table']}")
    connection.close()
    forwarder.prepare()
    write(forwarder, event(1))
    assert forwarder.status()["waiting_events"] == 1


def test_table_of_events_is_completed_once(server):
    wanted = {"events": json.dumps(records.EVENTS["types"]), "owner": "asterisk"}
    text = (records.FILES / "cel_table.sql").read_text()
    assert server.query(text, wanted) == []
    more = {"events": json.dumps({**records.EVENTS["types"], "site": "text"}), "owner": "asterisk"}
    assert server.query(text, more) == [("ALTER TABLE cel ADD COLUMN site text",)]
