"""What verify_call says when something is wrong, and that it puts everything back."""

from __future__ import annotations

import json
import re
import signal
import socket

import pytest
import yaml
from ansible.module_utils import basic
from ansible_collections.labredes.pbx.plugins.modules import verify_call

GOOD = {"src": "verify", "dst": "callee", "disposition": "ANSWERED", "billsec": "1"}


class Database:
    """Holds the rows a call left; queries tells what was asked."""

    def __init__(self, rows):
        self.rows, self.queries, self.closed = rows, [], False

    def query(self, statement, *values):
        self.queries.append((statement, values))
        return self.rows

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def signals():
    before = [signal.getsignal(number) for number in verify_call.SIGNALS]
    yield
    for number, handler in zip(verify_call.SIGNALS, before):
        signal.signal(number, handler)


def options():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = "http://127.0.0.1:%d/ari" % probe.getsockname()[1]
    database = {"host": "h", "port": 5432, "name": "asterisk", "table": "cdr", "user": "u", "password": "secret-2"}
    return {
        "ari_url": closed,
        "ari_user": "verify",
        "ari_password": "secret-1",
        "sip_host": "127.0.0.1",
        "sip_port": 5060,
        "context": "verify",
        "extension": "callee",
        "talk": 1.5,
        "timeout": 0.3,
        "database": database,
    }


def run(monkeypatch, capsys, **more):
    """What the whole module prints for these arguments."""
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": {**options(), **more}}).encode())
    with pytest.raises(SystemExit):
        verify_call.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_places_no_call(monkeypatch, capsys):
    monkeypatch.setattr(verify_call, "Test", None)
    assert run(monkeypatch, capsys, _ansible_check_mode=True)["msg"] == "check mode: no call was placed"


def test_an_exchange_that_is_down_is_named_and_nothing_stays_open(monkeypatch, capsys):
    database = Database([])
    monkeypatch.setattr(verify_call, "Database", lambda *_given: database)
    told = run(monkeypatch, capsys)
    assert told["failed"]
    assert re.match(r"verify: ARI at http://127\.0\.0\.1:\d+/ari does not answer \(.*\); is .*\?$", told["msg"])
    assert database.closed
    assert database.queries[-1][0].startswith("DELETE FROM cdr WHERE accountcode = $1")


def test_two_verifications_do_not_run_at_once(monkeypatch, capsys):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("\0labredes.pbx.verify")
        told = run(monkeypatch, capsys)
    assert told["msg"] == "verify: another verification is running on this host; wait until it has ended."


def test_a_table_name_is_not_a_statement(monkeypatch, capsys):
    told = run(monkeypatch, capsys, database={"table": "cdr; DROP TABLE cdr", "password": "secret-2"})
    assert told["msg"] == "verify: database.table is 'cdr; DROP TABLE cdr'; give the name of a table."


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "no record of it is in table cdr after 0.3 s"),
        ([GOOD, GOOD], "the one call left 2 records in table cdr"),
        ([{**GOOD, "disposition": "FAILED"}], "has disposition 'FAILED' where 'ANSWERED' is right"),
        ([{**GOOD, "billsec": "9"}], "says 9 s were billed where 1.5 s were spoken"),
        ([{**GOOD, "billsec": "0"}], "says 0 s were billed where 1.5 s were spoken"),
    ],
)
def test_a_wrong_call_record_is_named(rows, sentence):
    test = verify_call.Test(options())
    test.database = Database(rows)
    with pytest.raises(verify_call.DatabaseError, match=re.escape(sentence)):
        test._record(1.5)


def test_a_good_call_record_is_returned():
    test = verify_call.Test(options())
    test.database = Database([GOOD])
    assert test._record(1.5) == GOOD
    assert len(test.token) <= 20, "the original's accountcode column"


def test_clearing_away_goes_on_after_a_failure():
    test, done = verify_call.Test(options()), []

    def fail():
        raise OSError("no")

    test.rest = [lambda: done.append("first made"), fail, lambda: done.append("last made")]
    assert test.clean() == ["no"]
    assert done == ["last made", "first made"]


def test_the_documentation_tells_the_defaults(monkeypatch):
    told = yaml.safe_load(verify_call.DOCUMENTATION)["options"]
    seen = {}

    def capture(argument_spec, **_more):
        seen.update(argument_spec)
        raise SystemExit

    monkeypatch.setattr(verify_call, "AnsibleModule", capture)
    with pytest.raises(SystemExit):
        verify_call.main()

    def facts(spec, key):
        return {
            name: (
                item.get("type", "str"),
                item.get("default"),
                item.get("required", False),
                facts(item.get(key, {}), key),
            )
            for name, item in spec.items()
        }

    assert facts(seen, "options") == facts(told, "suboptions")
