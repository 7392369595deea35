"""Module records_dump adds the call records of a dump to a database of this machine, each once."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
from ansible_collections.labredes.pbx.plugins.modules import records_dump

FILL = (
    "INSERT INTO cdr (calldate, src, dst, clid, uniqueid, sequence, duration, disposition, userfield)"
    " SELECT '2026-01-01'::timestamp + n * interval '1 min', '6001', '6002', E'Jos\\u00e9 \\\\ \\t \\u20ac', 'a-' || n,"
    " n, n, 'ANSWERED', md5(n::text) || md5(n::text || 'x') FROM generate_series(1, 2000) n"
)
CONTENT = "SELECT count(*), md5(string_agg((to_jsonb(c) - 'id')::text, '|' ORDER BY uniqueid, sequence)) FROM cdr c"


@pytest.fixture
def dump(server, tmp_path):
    """A dump of 2,000 records; the table is as it was dumped."""
    server.query("TRUNCATE cdr RESTART IDENTITY")
    server.query(FILL)
    # The table's trigger would take it for UTF-8 that was read as LATIN9.
    server.query("UPDATE cdr SET clid = 'Ã©' WHERE sequence = 600")
    path = tmp_path / "records.pgc"
    command = ["pg_dump", "-h", "127.0.0.1", "-p", str(server.port), "-U", "asterisk", "-Fc", "-f", path, "asterisk"]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def run(server, monkeypatch, run_module):
    """A function that runs the module and gives its answer."""

    def call(path, check=False, **options):
        arguments = {"path": str(path), "table": "cdr", "port": server.port, **options}
        with monkeypatch.context() as patch:
            # By the network instead of the local socket.
            for name, value in (("PGHOST", "127.0.0.1"), ("PGUSER", "asterisk")):
                patch.setenv(name, value)
            return run_module(records_dump, check, **arguments)

    return call


def test_records_of_a_dump_are_counted(dump, run):
    answer = run(dump)
    assert (answer["records"], answer["latest"], answer["changed"]) == (2000, "2026-01-02 09:20:00", False)


def test_lost_records_come_back_once_and_whole(dump, run, server):
    before = server.query(CONTENT)
    server.query("DELETE FROM cdr WHERE sequence > 500")
    server.query("INSERT INTO cdr (calldate, uniqueid, sequence) VALUES ('2027-01-01', 'new', 1)")
    would = run(dump, check=True, database="asterisk")
    assert (would["added"], would["changed"], server.query("SELECT count(*) FROM cdr")) == (1500, True, [(501,)])
    assert run(dump, database="asterisk")["added"] == 1500
    assert run(dump, database="asterisk")["changed"] is False
    server.query("DELETE FROM cdr WHERE uniqueid = 'new'")
    assert server.query(CONTENT) == before


def test_record_of_the_same_key_stays_and_is_reported(dump, run, server):
    server.query("UPDATE cdr SET dst = '6003' WHERE sequence = 7")
    answer = run(dump, database="asterisk")
    assert (answer["added"], answer["others"]) == (0, 1)
    assert server.query("SELECT dst FROM cdr WHERE sequence = 7") == [("6003",)]


def test_records_without_a_sequence_are_not_doubled(run, server, dump, tmp_path):
    server.query("UPDATE cdr SET sequence = NULL WHERE sequence <= 10")
    command = ["pg_dump", "-h", "127.0.0.1", "-p", str(server.port), "-U", "asterisk", "-Fc", "-f", dump, "asterisk"]
    subprocess.run(command, check=True)
    assert run(dump, database="asterisk")["added"] == 0
    server.query("DELETE FROM cdr WHERE sequence IS NULL")
    assert run(dump, database="asterisk")["added"] == 10


def test_column_that_the_table_lacks_is_refused(dump, run, server, tmp_path):
    server.query("ALTER TABLE cdr ADD COLUMN costcentre varchar(40)")
    path = tmp_path / "wide.pgc"
    command = ["pg_dump", "-h", "127.0.0.1", "-p", str(server.port), "-U", "asterisk", "-Fc", "-f", path, "asterisk"]
    subprocess.run(command, check=True)
    server.query("ALTER TABLE cdr DROP COLUMN costcentre")
    assert run(path, database="asterisk")["msg"] == (
        "The call records: the table cdr lacks the column costcentre of the archive; add it to labredes_cdr_columns "
        "and run site.yml first."
    )


def test_additional_column_of_the_table_has_its_default(dump, run, server):
    server.query("TRUNCATE cdr")
    server.query("ALTER TABLE cdr ADD COLUMN costcentre varchar(40) NOT NULL DEFAULT 'none'")
    with contextlib.ExitStack() as stack:
        stack.callback(server.query, "ALTER TABLE cdr DROP COLUMN costcentre")
        assert run(dump, database="asterisk")["added"] == 2000
        assert server.query("SELECT DISTINCT costcentre FROM cdr") == [("none",)]


@pytest.mark.parametrize("part", [0.1, 0.5, 0.97])
def test_dump_cut_short_adds_nothing(dump, run, server, part):
    server.query("TRUNCATE cdr")
    dump.write_bytes(dump.read_bytes()[: int(dump.stat().st_size * part)])
    answer = run(dump, database="asterisk")
    assert answer["msg"].startswith("The call records: the dump cannot be read (pg_restore: "), answer
    assert server.query("SELECT count(*) FROM cdr") == [(0,)]


def test_lost_events_come_back_once(run, server, tmp_path):
    server.query("TRUNCATE cel")
    server.query(
        "INSERT INTO cel (eventtype, eventtime, uniqueid) SELECT 'ANSWER',"
        " '2026-01-01'::timestamp + n * interval '1 us', 'a-' || n % 7 FROM generate_series(1, 1000) n"
    )
    path = tmp_path / "events.pgc"
    command = ["pg_dump", "-h", "127.0.0.1", "-p", str(server.port), "-U", "asterisk", "-Fc", "-f", path, "asterisk"]
    subprocess.run(command, check=True)
    events = {"table": "cel", "kind": "cel"}
    assert run(path, **events)["latest"] == "2026-01-01 00:00:00.001"
    server.query("DELETE FROM cel WHERE id % 2 = 0")
    server.query("UPDATE cel SET appname = 'Dial' WHERE uniqueid = 'a-0'")
    done = run(path, database="asterisk", **events)
    assert (done["records"], done["added"], done["others"], done["missing"]) == (1000, 500, 71, False)
    assert run(path, database="asterisk", **events)["changed"] is False
    # A new exchange without channel events.
    server.query("ALTER TABLE cel RENAME TO gone")
    try:
        done = run(path, database="asterisk", **events)
        assert (done["records"], done["added"], done["missing"]) == (1000, 0, True)
        subprocess.run(command, check=True)
        assert (run(path, **events)["records"], run(path, database="asterisk", **events)["missing"]) == (0, False)
    finally:
        server.query("ALTER TABLE gone RENAME TO cel")
        server.query("TRUNCATE cel")
