"""The view calls: one row for each call, from the records that each way of a call leaves on Asterisk 22 (measured)."""

from __future__ import annotations

import json

import pytest
import records

COLUMNS = ("seconds", "uniqueid", "linkedid", "src", "dst", "channel", "dstchannel", "app", "data", "all", "bill")
# (seconds after the first, uniqueid, linkedid, src, dst, channel, dstchannel, lastapp, lastdata, duration, billsec,
# disposition, more), in the order in which Asterisk writes them.
WAYS = {
    "direct": (
        [(0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 9, 5, "ANSWERED")],
        ("6001", "6002", "", "6002", None, "ANSWERED", 4, 5),
    ),
    "cancelled": (
        [(0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 7, 0, "NO ANSWER")],
        ("6001", "6002", "", None, None, "NO ANSWER", 7, 0),
    ),
    "busy, then mailbox": (
        [
            (0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 1, 0, "BUSY"),
            (1, 1, 1, "6001", "6002", "PJSIP/6001-a1", "", "VoiceMail", "6002@from-internal,b", 8, 8, "ANSWERED"),
        ],
        ("6001", "6002", "voicemail 6002", None, None, "VOICEMAIL", 1, 0),
    ),
    "engaged": (
        [(0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 1, 0, "BUSY")],
        ("6001", "6002", "", None, None, "BUSY", 1, 0),
    ),
    "forward": (
        [(0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6003-a2", "Dial", "", 4, 2, "ANSWERED")],
        ("6001", "6002", "forward", "6003", None, "ANSWERED", 2, 2),
    ),
    "302": (
        [
            (0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 0, 0, "NO ANSWER"),
            (0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "Local/6003@from-internal-0;1", "Dial", "", 5, 4, "ANSWERED"),
            (0, 4, 1, "6001", "6003", "Local/6003@from-internal-0;2", "PJSIP/6003-a3", "Dial", "", 5, 4, "ANSWERED"),
        ],
        ("6001", "6002", "forward", "6003", None, "ANSWERED", 1, 4),
    ),
    "queue, second member answered": (
        [
            (1, 1, 1, "6001", "8001", "PJSIP/6001-a1", "PJSIP/6003-a2", "Queue", "ColaUno,,,,120", 2, 2, "NO ANSWER"),
            (2, 1, 1, "6001", "8001", "PJSIP/6001-a1", "PJSIP/6002-a3", "Queue", "ColaUno,,,,120", 9, 9, "ANSWERED", 5),
        ],
        ("6001", "8001", "queue ColaUno", "6002", None, "ANSWERED", 4, 6),
    ),
    "queue, abandoned": (
        [(0, 1, 1, "6001", "8001", "PJSIP/6001-a1", "PJSIP/6002-a2", "Queue", "ColaUno,,,,120", 30, 30, "NO ANSWER")],
        ("6001", "8001", "queue ColaUno", None, None, "ABANDONED", 30, 0),
    ),
    "menu": (
        [(0, 1, 1, "6001", "11888", "PJSIP/6001-a1", "PJSIP/6003-a2", "Dial", "", 17, 17, "ANSWERED", 12)],
        ("6001", "11888", "menu 11888", "6003", None, "ANSWERED", 12, 5),
    ),
    "menu without a choice": (
        [(0, 1, 1, "6001", "11888", "PJSIP/6001-a1", "", "Hangup", "", 30, 30, "ANSWERED")],
        ("6001", "11888", "menu 11888", None, None, "SERVICE", 0, 0),
    ),
    "transfer behind a menu": (
        [
            (0, 1, 1, "6001", "11888", "PJSIP/6001-a1", "PJSIP/6003-a2", "Dial", "", 17, 17, "ANSWERED", 12),
            (17, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a3", "Dial", "", 4, 4, "ANSWERED"),
        ],
        ("6001", "11888", "menu 11888, transfer", "6003", "6002", "ANSWERED", 12, 9),
    ),
    "conference": (
        [(0, 1, 1, "6001", "6000", "PJSIP/6001-a1", "", "ConfBridge", "6000,exchange_bridge", 30, 29, "ANSWERED")],
        ("6001", "6000", "conference 6000", None, None, "CONFERENCE", 1, 29),
    ),
    "mailbox heard": (
        [(0, 1, 1, "6001", "6500", "PJSIP/6001-a1", "", "VoiceMailMain", "6001@from-internal", 9, 9, "ANSWERED")],
        ("6001", "6500", "", None, None, "SERVICE", 0, 0),
    ),
    "blind transfer of the caller": (
        [
            (0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 4, 3, "ANSWERED"),
            (4, 1, 1, "6001", "6003", "PJSIP/6001-a1", "PJSIP/6003-a3", "Dial", "", 6, 6, "ANSWERED"),
        ],
        ("6001", "6002", "transfer", "6002", "6003", "ANSWERED", 1, 9),
    ),
    "blind transfer of the called phone": (
        [
            (0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 4, 3, "ANSWERED"),
            (4, 2, 1, "6002", "6003", "PJSIP/6002-a2", "PJSIP/6003-a3", "Dial", "", 6, 6, "ANSWERED"),
        ],
        ("6001", "6002", "transfer", "6002", "6003", "ANSWERED", 1, 9),
    ),
    "blind transfer to the queue": (
        [
            (0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 4, 3, "ANSWERED"),
            (4, 1, 1, "6001", "8001", "PJSIP/6001-a1", "PJSIP/6003-a3", "Queue", "sales,,,,9", 6, 6, "ANSWERED", 7),
        ],
        ("6001", "6002", "queue sales, transfer", "6002", "6003", "ANSWERED", 1, 9),
    ),
    "attended transfer by the called phone": (
        [
            (0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 5, 5, "ANSWERED"),
            (5, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6003-a4", "Dial", "", 3, 3, "ANSWERED"),
        ],
        ("6001", "6002", "transfer", "6002", "6003", "ANSWERED", 0, 8),
    ),
    "attended transfer by the caller": (
        [
            (0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 5, 5, "ANSWERED"),
            (5, 2, 1, "6002", "", "PJSIP/6002-a2", "PJSIP/6003-a4", "AppDial", "", 3, 3, "ANSWERED"),
        ],
        ("6001", "6002", "transfer", "6002", "6003", "ANSWERED", 0, 8),
    ),
    "loop of two phones": (
        [
            (0, 9, 1, "6001", "6003", "Local/6003@from-internal-9;2", "", "VoiceMail", "6003@x,u", 4, 4, "ANSWERED"),
            (0, 7, 1, "6003", "", "Local/6003@from-internal-7;1", "Local/6002@from-internal-8;1", "AppDial", "", 0, 0,
             "ANSWERED"),
            (0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 0, 0, "NO ANSWER"),
            (0, 1, 1, "6001", "6002", "PJSIP/6001-a1", "Local/6003@from-internal-0;1", "Dial", "", 4, 4, "ANSWERED"),
        ],
        ("6001", "6002", "forward, voicemail 6003", None, None, "VOICEMAIL", 0, 0),
    ),
    "before the column linkedid": (
        [(0, 1, None, "6001", "6002", "PJSIP/6001-a1", "PJSIP/6002-a2", "Dial", "", 9, 5, "ANSWERED")],
        ("6001", "6002", "", "6002", None, "ANSWERED", 4, 5),
    ),
}  # fmt: skip
# The context in which a caller's record ends who has dialled the menu, by its last application.
MENU = {"Dial": "department", "VoiceMail": "department"}
CALL = "SELECT caller, dialled, through, answered_by, transferred_to, result, waiting, talking FROM calls ORDER BY at"


def write(server, rows: list, begin: int = 0) -> None:
    """Put records into the table."""
    for number, (seconds, uniqueid, linkedid, src, dst, *more) in enumerate(rows):
        channel, dstchannel, app, data, duration, billsec, disposition, *connected = more
        server.query(
            "INSERT INTO cdr (calldate, uniqueid, linkedid, src, dst, channel, dstchannel, lastapp, lastdata, duration,"
            " billsec, disposition, sequence, dcontext, connected, released)"
            " VALUES (to_timestamp(%s) AT TIME ZONE 'UTC', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(records.BEGIN + begin + seconds, f"pbx1-{begin}.{uniqueid}"),
                *("" if linkedid is None else f"pbx1-{begin}.{linkedid}", src, dst, channel, dstchannel, app, data),
                *(
                    duration,
                    billsec,
                    disposition,
                    number,
                    MENU.get(app, "call-centres") if dst == "11888" else "from-internal",
                ),
                *(records.BEGIN + begin + second for second in connected),
                *[None] * (2 - len(connected)),
            ),
        )


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_a_call_is_one_row(server, way):
    server.query("TRUNCATE cdr")
    rows, expected = WAYS[way]
    write(server, rows)
    assert server.query(CALL) == [expected]
    assert server.query("SELECT linkedid, records FROM calls") == [("pbx1-0.1", len(rows))]


def test_consultation_of_an_attended_transfer_is_a_call(server):
    server.query("TRUNCATE cdr")
    consultation = (2, 3, 3, "6002", "6003", "PJSIP/6002-a3", "PJSIP/6003-a4", "Dial", "", 2, 2, "ANSWERED")
    rows, expected = WAYS["attended transfer by the called phone"]
    write(server, [consultation, *rows])
    assert server.query(CALL) == [expected, ("6002", "6003", "", "6003", None, "ANSWERED", 0, 2)]


@pytest.mark.parametrize("logged_in", [True, False])
def test_each_call_to_an_agent_is_one_row(server, logged_in):
    """Also while the agent's login, whose linkedid they get, has no record yet."""
    server.query("TRUNCATE cdr")
    queue, agent = ("Queue", "ColaUno,,,,120"), "Local/6001@agents-1;1"
    calls = [
        (9, 2, 1, "6002", "8001", "PJSIP/6002-a2", agent, *queue, 4, 4, "ANSWERED", 12, 17),
        (29, 3, 1, "6003", "8001", "PJSIP/6003-a3", agent, *queue, 1, 1, "ANSWERED", 30, 38),
    ]
    login = [
        (0, 1, 1, "6001", "7000", "PJSIP/6001-a1", "PJSIP/6002-a2", "AgentLogin", "6001", 12, 12, "ANSWERED"),
        (12, 1, 1, "6001", "7000", "PJSIP/6001-a1", "PJSIP/6003-a3", "AgentLogin", "6001", 40, 40, "ANSWERED"),
    ]
    write(server, calls + (login if not logged_in else []))
    expected = [
        ("6002", "8001", "queue ColaUno", "6001", None, "ANSWERED", 3, 5),
        ("6003", "8001", "queue ColaUno", "6001", None, "ANSWERED", 1, 8),
    ]
    if not logged_in:
        expected.insert(0, ("6001", "7000", "", None, None, "SERVICE", 0, 0))
    assert server.query(CALL) == expected


def test_day_of_calls_is_found_by_the_indexes(server):
    server.query("TRUNCATE cdr")
    server.query(
        "INSERT INTO cdr (calldate, uniqueid, linkedid, sequence, channel, lastapp, disposition, duration, billsec)"
        " SELECT timestamp '2026-01-01' + n * interval '1 minute', 'pbx1-' || n, 'pbx1-' || n, n, 'PJSIP/6001-1',"
        " 'Dial', 'NO ANSWER', 1, 0 FROM generate_series(1, 20000) AS n"
    )
    server.query("ANALYZE cdr")
    question = "SELECT * FROM calls WHERE at >= '2026-01-10' AND at < '2026-01-11'"
    assert len(server.query(question)) == 1440
    plan = json.dumps(server.query(f"EXPLAIN (FORMAT JSON) {question}")[0][0])
    assert "Seq Scan" not in plan, plan


def complete(server, columns: dict | None = None, reader: str = "", **more) -> list[str]:
    """The statements with which the role completes the table, after they have been run."""
    wanted = {
        "table": "cdr",
        "owner": "asterisk",
        "reader": reader,
        "columns": json.dumps({**records.COLUMNS, **(columns or {})}),
        "repair": (records.FILES / "repair_text.sql").read_text(),
        "calls": (records.FILES / "calls.sql").read_text(),
        **more,
    }
    statements = [row[0] for row in server.query((records.FILES / "cdr_table.sql").read_text(), wanted)]
    server.query("; ".join(statements) or "SELECT 1")
    return statements


def test_view_is_made_once_and_again_after_a_change(server):
    assert complete(server) == []
    server.query("CREATE ROLE reader; CREATE ROLE other; GRANT SELECT ON calls TO other")
    assert [line for line in complete(server, reader="reader") if "calls" in line] == [
        "GRANT SELECT ON calls TO reader"
    ]
    assert complete(server, reader="reader") == []
    # Another definition; whoever else may read the view still may.
    other = (records.FILES / "calls.sql").read_text() + " AND true"
    assert complete(server, calls=other)[0].startswith("CREATE OR REPLACE VIEW calls")
    assert server.query("SELECT has_table_privilege('other', 'calls', 'SELECT')") == [(True,)]
    complete(server)
    # PostgreSQL refuses to widen a column of a view.
    assert complete(server, {"dst": "varchar(200)"}, reader="reader")[0] == "DROP VIEW calls"
    assert complete(server, {"dst": "varchar(200)"}, reader="reader") == []
    assert server.query("SELECT has_table_privilege('reader', 'calls', 'SELECT')") == [(True,)]
