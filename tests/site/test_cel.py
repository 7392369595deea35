"""Channel events (CEL): recorded where they are switched on, each once, and switching them ends no call."""

from __future__ import annotations

import json

import pytest
from playbook import play
from sipp import within

BACKEND = "CEL sqlite3 custom backend"
# The events of an answered call: of both channels, and once the end of all.
EVENTS = {
    "CHAN_START": 2,
    "APP_START": 1,
    "ANSWER": 2,
    "BRIDGE_ENTER": 2,
    "BRIDGE_EXIT": 2,
    "APP_END": 1,
    "HANGUP": 2,
    "CHAN_END": 2,
    "LINKEDID_END": 1,
}


@pytest.fixture
def switch(lab_directory, on_lab):
    """A function that has a run switch the events on or off; returns what the run says."""

    def run(on: bool) -> str:
        described = json.dumps({"labredes_cel_enabled": on})
        done = play(lab_directory, "--tags=database,asterisk" if on else "--tags=asterisk", "--diff", "-e", described)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    yield run
    if "Running" in on_lab("asterisk -rx 'module show like cel_sqlite3'"):
        run(False)


def rows(on_lab, query: str) -> list[str]:
    """What the database answers; not on a connection that is kept, since it is stopped here."""
    return on_lab(f'cd / && sudo -u postgres psql -AtF= asterisk -c "{query}"').split()


def latest(on_lab) -> str:
    """The last call that has a record."""
    return rows(on_lab, "SELECT linkedid FROM cdr ORDER BY id DESC LIMIT 1")[0]


def events(on_lab, linkedid: str) -> dict[str, int]:
    """How often each event of a call is in the table."""
    found = rows(on_lab, f"SELECT eventtype, count(*) FROM cel WHERE linkedid = '{linkedid}' GROUP BY 1")
    return {name: int(number) for name, number in (row.split("=") for row in found)}


def test_events_arrive_once_and_switching_ends_no_call(switch, on_lab, telephones):
    # SIPp ends a call after 100 s, so each of them spans one run.
    phone = telephones.answering("6002")
    caller = telephones.dial("6001", "6002")
    assert "asterisk.service: reloaded cel_sqlite3_custom" in switch(True)
    assert BACKEND in on_lab("asterisk -rx 'cel show status'")
    assert not caller.over
    caller.hang_up()
    # While PostgreSQL is down, they wait in the journal.
    status = "labredes-cdr status"
    on_lab("systemctl stop 'postgresql@*-main.service'", seconds=60)
    try:
        caller = telephones.dial("6001", "6002")
        assert phone.talks()
        caller.hang_up()
        wanted = sum(EVENTS.values())
        assert within(10, lambda: json.loads(on_lab(status))["waiting_events"] >= wanted), on_lab(status)
    finally:
        on_lab("systemctl start postgresql", seconds=60)
    assert within(40, lambda: json.loads(on_lab(status))["waiting_events"] == 0), on_lab(status)
    linkedid = latest(on_lab)
    assert events(on_lab, linkedid) == EVENTS
    caller = telephones.dial("6001", "6002")
    said = switch(False)
    assert "asterisk.service: reloaded cel" in said and not caller.over, said[-3000:]
    shown = on_lab(
        "asterisk -rx 'cel show status'; asterisk -rx 'module show like cel_'; ls /etc/asterisk/cel_* || true"
    )
    assert "CEL Logging: Disabled" in shown and "cel_sqlite3" not in shown, shown
    caller.hang_up()
    assert within(10, lambda: latest(on_lab) != linkedid)
    assert events(on_lab, latest(on_lab)).get("HANGUP", 0) == 0
