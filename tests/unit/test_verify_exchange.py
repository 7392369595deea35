"""The messages of verify_call when something is wrong, and that it removes everything."""

from __future__ import annotations

import json
import re
import signal
import socket
import time

import pytest
import yaml
from ansible.module_utils import basic
from ansible_collections.labredes.pbx.plugins.modules import verify_call

GOOD = {"src": "verify", "dst": "callee", "disposition": "ANSWERED", "billsec": 1}


class Records:
    """Holds the rows that a call left."""

    table = "cdr"

    def __init__(self, rows):
        self.rows, self.statements = rows, []

    def query(self, statement, *_values):
        self.statements.append(statement)
        return self.rows


@pytest.fixture(autouse=True)
def signals():
    before = [signal.getsignal(number) for number in verify_call.SIGNALS]
    yield
    for number, handler in zip(verify_call.SIGNALS, before, strict=True):
        signal.signal(number, handler)


def options():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}/ari"
    return {
        "ari_url": closed,
        "ari_password": "secret-1",
        "sip_host": "127.0.0.1",
        "sip_port": 5060,
        "talk": 1.5,
        "timeout": 0.3,
        "table": "cdr",
        "database": {"host": "127.0.0.1", "port": 1, "dbname": "asterisk", "user": "u"},
        "database_password": "secret-2",
    }


def run(monkeypatch, capsys, **more):
    """The result of the module for these arguments."""
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": {**options(), **more}}).encode())
    with pytest.raises(SystemExit):
        verify_call.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_places_no_call(monkeypatch, capsys):
    monkeypatch.setattr(verify_call, "Verification", None)
    assert run(monkeypatch, capsys, _ansible_check_mode=True)["msg"] == "check mode: no call was placed"


def test_ari_that_does_not_answer_is_named(monkeypatch, capsys):
    monkeypatch.setattr(verify_call, "CallRecords", lambda *_given: Records([]))
    result = run(monkeypatch, capsys)
    assert re.match(r"verify: ARI at http://127\.0\.0\.1:\d+/ari does not answer \(.*\); is .*\?$", result["msg"])


def test_database_that_refuses_is_named(monkeypatch, capsys):
    result = run(monkeypatch, capsys)
    assert result["msg"].startswith("verify: database asterisk at 127.0.0.1:1 cannot be queried: ")


def test_database_that_is_frozen_is_given_up_in_time(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        login = {**options()["database"], "port": silent.getsockname()[1]}
        began = time.monotonic()
        result = run(monkeypatch, capsys, database=login)
    assert result["msg"].endswith("cannot be queried: it did not answer within 0.15 s.")
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "left 0 records in table cdr within 0.3 s"),
        ([GOOD, GOOD], "left 2 records in table cdr"),
        ([{**GOOD, "disposition": "FAILED"}], "has disposition 'FAILED' where 'ANSWERED' is right"),
        ([{**GOOD, "billsec": 9}], "has billsec 9 where the call took 1.5 s"),
        ([{**GOOD, "billsec": 0}], "has billsec 0 where the call took 1.5 s"),
    ],
)
def test_wrong_call_record_is_named(rows, sentence):
    test = verify_call.Verification(options())
    test.records = Records(rows)
    with pytest.raises(verify_call.DatabaseError, match=re.escape(sentence)):
        test._record(1.5)


def test_right_call_record_is_returned():
    test = verify_call.Verification(options())
    test.records = Records([GOOD])
    assert test._record(1.5) == GOOD
    assert len(test.token) <= 20, "accountcode has 20 characters in older tables"


def test_cleanup_continues_after_a_failure():
    test, done = verify_call.Verification(options()), []

    def fail():
        raise OSError("no")

    test.cleanup = [lambda: done.append("first made"), fail, lambda: done.append("last made")]
    assert test.clean() == ["no"]
    assert done == ["last made", "first made"]


def test_record_of_a_failed_call_is_removed(monkeypatch):
    test = verify_call.Verification(options())
    test.records = Records([{}])
    caller, callee = (verify_call.Phone(name, "p", ("127.0.0.1", 9)) for name in ("a", "b"))
    with pytest.raises(verify_call.SipError):
        test._call(caller, callee)
    test.clean()
    assert test.records.statements == ["DELETE FROM {table} WHERE accountcode = %s RETURNING 1"]


def test_documentation_has_the_options_of_the_module(monkeypatch):
    documented = yaml.safe_load(verify_call.DOCUMENTATION)["options"]
    seen = {}

    def capture(argument_spec, **_more):
        seen.update(argument_spec)
        raise SystemExit

    monkeypatch.setattr(verify_call, "AnsibleModule", capture)
    with pytest.raises(SystemExit):
        verify_call.main()

    def facts(spec):
        return {
            name: (item.get("type", "str"), item.get("default"), item.get("required", False))
            for name, item in spec.items()
        }

    assert facts(seen) == facts(documented)
