"""The messages of verify_exchange when something is wrong, and that it removes everything."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import ssl
import time
from concurrent.futures import Future

import pytest
import yaml
from ansible_collections.labredes.pbx.plugins.module_utils import asterisk_cli, cdr_journal, running_exchange
from ansible_collections.labredes.pbx.plugins.modules import verify_exchange

GOOD = {"src": "verify", "dst": "verify-udp", "disposition": "ANSWERED", "billsec": 1}
SHOWN_FACTS = {key: GOOD[key] for key in ("src", "disposition", "billsec")}


class Records:
    """Holds the rows that calls left."""

    table = "cdr"

    def __init__(self, rows):
        self.rows, self.statements = rows, []

    def query(self, statement, *_values):
        self.statements.append(statement)
        return self.rows


class Ari:
    """Answers with channels for as long as there are any; keeps what it was asked to delete."""

    def __init__(self, channels=(), variables=None):
        self.channels, self.variables, self.deleted = list(channels), variables or {}, []

    def request(self, method, path):
        if method == "DELETE":
            self.deleted.append(path)
            self.channels = [channel for channel in self.channels if not path.endswith(channel["id"])]
            return {}
        if path == "/asterisk/info?only=config":
            return {"config": {"name": "pbx1"}}
        return self.channels if path == "/channels" else self.variables.get(path)

    def object(self, method, kind, name):
        assert method == "DELETE"
        self.deleted.append((kind, name))


def options(**more):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    return {
        "described": {},
        "journal": "",
        "cel": False,
        "passwords": {},
        "servers": {"udp": f"127.0.0.1:{closed}"},
        "certificate": None,
        "ari_url": f"http://127.0.0.1:{closed}/ari",
        "ari_password": "secret-1",
        "talk": 1.5,
        "timeout": 0.4,
        "table": "cdr",
        "database": {"host": "127.0.0.1", "port": 1, "dbname": "asterisk", "user": "u"},
        "database_password": "secret-2",
        "events": "",
        **more,
    }


@pytest.fixture
def cli(monkeypatch):
    """The answers of Asterisk's CLI by command; every other command has an empty answer."""
    answers = {}
    for module in (running_exchange, verify_exchange):
        monkeypatch.setattr(module, "cli", lambda command, _seconds: answers.get(command, ""))
    return answers


@pytest.fixture
def run(run_module):
    """A function that runs the module with the arguments of options() and others, and gives its answer."""
    return lambda **more: run_module(verify_exchange, **options(**more))


def test_check_mode_does_nothing(monkeypatch, run):
    monkeypatch.setattr(verify_exchange, "Verification", None)
    assert run(_ansible_check_mode=True)["msg"].startswith("check mode: nothing was compared")


def test_ari_that_does_not_answer_is_named(monkeypatch, run, cli):
    monkeypatch.setattr(verify_exchange, "CallRecords", lambda *_given: Records([{}]))
    result = run()
    assert re.match(r"verify: ARI at http://127\.0\.0\.1:\d+/ari does not answer \(.*\); restart aster", result["msg"])


def test_database_that_refuses_is_named(monkeypatch, run, cli):
    monkeypatch.setattr(verify_exchange, "Ari", lambda *_given: Ari())
    result = run()
    assert result["msg"].startswith("verify: Database asterisk at 127.0.0.1:1 cannot be queried: ")


def test_database_that_is_frozen_is_given_up_in_time(monkeypatch, run, cli):
    monkeypatch.setattr(verify_exchange, "Ari", lambda *_given: Ari())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        login = {**options()["database"], "port": silent.getsockname()[1]}
        began = time.monotonic()
        result = run(database=login)
    assert result["msg"].endswith("cannot be queried: it did not answer within 0.2 s.")
    assert time.monotonic() - began < 3


def test_asterisk_that_does_not_run_is_named_first(monkeypatch, run):
    monkeypatch.setattr(asterisk_cli, "ASTERISK", "/bin/false")
    result = run()
    assert re.fullmatch(r"verify: Asterisk does not run or refuses [^.]*\.", result["msg"]), result["msg"]


def test_every_problem_is_named_up_to_a_number(monkeypatch, run, cli):
    monkeypatch.setattr(verify_exchange, "CallRecords", lambda *_given: Records([{}]))
    monkeypatch.setattr(verify_exchange, "Ari", lambda *_given: Ari())
    monkeypatch.setattr(verify_exchange.Verification, "_make_endpoints", lambda _self: None)
    monkeypatch.setattr(verify_exchange, "SHOWN", 3)
    result = run(described={"agent": {"1": None, "2": None}})
    assert re.fullmatch(
        r"verify: Over udp, port \d+ of 127.0.0.1 is closed; see /var/log/asterisk/messages\. "
        r"What runs differs from what is described, in 2 places; run [^.]*\.yml and [^.]*\.yml, "
        r"and restart [^.]*\.service [^.]*\. "
        r"Agent 1 is missing\. 1 more are not shown\.",
        result["msg"],
    ), result["msg"]


def test_passwords_are_not_in_the_result(monkeypatch, run, cli):
    monkeypatch.setattr(verify_exchange, "CallRecords", lambda *_given: Records([{}]))
    auth = {"described": {"auth": {"6001": {"username": "6001"}}}, "passwords": {"6001": "kR7vTz0qWm2"}}
    result = run(**auth)
    assert "invocation" in result and "kR7vTz0qWm2" not in json.dumps(result)
    assert "secret-1" not in json.dumps(result) and "secret-2" not in json.dumps(result)


def verification(**more):
    return verify_exchange.Verification(options(**more))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [],
            "the call over udp, of 1.5 s, should leave one record, src verify and ANSWERED, in table cdr, but left []",
        ),
        ([GOOD, GOOD], f"but left {[SHOWN_FACTS, SHOWN_FACTS]}; see"),
        ([{**GOOD, "dst": "6001"}], "but left []"),
        ([{**GOOD, "disposition": "FAILED"}], "'disposition': 'FAILED'"),
        ([{**GOOD, "src": "6001"}], "'src': '6001'"),
        ([{**GOOD, "billsec": 9}], "'billsec': 9"),
        ([{**GOOD, "billsec": 0}], "'billsec': 0"),
    ],
)
def test_wrong_call_record_is_named(rows, sentence):
    test = verification()
    test.records = Records(rows)
    (problem,) = test._read_records({"udp": {"seconds": 1.5}})
    assert sentence in problem


def test_every_call_gets_its_record():
    test = verification()
    test.records = Records([GOOD, {**GOOD, "dst": "verify-tls", "billsec": 2}])
    figures = {"udp": {"seconds": 1.5}, "tls": {"seconds": 1.5}}
    assert test._read_records(figures) == []
    assert [call["cdr"][0]["dst"] for call in figures.values()] == ["verify-udp", "verify-tls"]
    assert len(test.token) <= 20, "accountcode has 20 characters in older tables"


def test_removal_covers_what_any_run_may_have_left(cli):
    test = verification()
    test.records, test.ari = Records([{}]), Ari([{"id": "1.5", "name": "PJSIP/verify-udp-00000001"}])
    cli["database show registrar/contact"] = "/registrar/contact/6001;@aa: {}\n/registrar/contact/verify-tls;@bb1: {}\n"
    assert test.remove() == []
    assert test.ari.deleted[:2] == ["/channels/1.5", ("contact", "verify-tls;@bb1")]
    assert {("auth", "verify"), ("endpoint", "verify"), ("endpoint", "verify-wss"), ("aor", "verify-tcp")} <= set(
        test.ari.deleted[2:]
    )
    assert "6001" not in str(test.ari.deleted)
    assert [statement[:20] for statement in test.records.statements] == ["DELETE FROM {table} "]


def test_what_an_earlier_run_left_is_removed_first(cli):
    test = verification()
    test.records, test.ari = Records([]), Ari([{"id": "1.5", "name": "PJSIP/verify-00000001"}])
    test.check()
    assert test.name == "pbx1-" and "DELETE" in test.records.statements[0]
    assert {"/channels/1.5", ("auth", "verify")} <= set(test.ari.deleted)


def test_removal_continues_after_a_failure(cli):
    test = verification()
    test.records = Records([{}])
    assert re.match("the verification's own objects are not removed, since ARI", "".join(test.remove()))
    assert test.records.statements, "the records are not removed"


@pytest.mark.parametrize(("value", "missing"), [("1", []), ("0", ["call centre 11888 is missing"])])
def test_call_centre_is_looked_up_by_a_channel(value, missing, cli):
    test = verification(described={"call centre": {"11888": None}})
    variable = "/channels/7/variable?variable=DIALPLAN_EXISTS(call-centres,11888,1)"
    test.ari = Ari([{"id": "7", "name": "PJSIP/verify-00000001"}], {variable: {"value": value}})
    assert test._compare({"udp": Future()})[1:] == missing


def test_call_centre_is_left_out_without_a_call(cli):
    test, failed = verification(described={"call centre": {"11888": None}}), Future()
    test.ari = Ari()
    failed.set_result(None)
    assert test._compare({"udp": failed}) == []


@pytest.mark.parametrize(("same", "sentence"), [(True, "did not answer the REGISTER"), (False, "another certificate")])
def test_other_certificate_is_named(monkeypatch, tmp_path, same, sentence):
    """A file that has a chain behind the certificate, too."""
    pem = ssl.DER_cert_to_PEM_cert(b"served" * 30)
    path = tmp_path / "certificate.pem"
    path.write_text((pem if same else "") + ssl.DER_cert_to_PEM_cert(b"issuer" * 30))

    class Connection:
        """Nothing arrives."""

        transport, host, port, certificate = "tls", "127.0.0.1", 1, b"served" * 30

        def __init__(self, _transport, server, _seconds):
            self.server, self.socket = server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        def send(self, data):
            pass

    monkeypatch.setattr(verify_exchange, "Connection", Connection)
    test = verification(servers={"tls": "127.0.0.1:5061"}, certificate=str(path))
    with pytest.raises(verify_exchange.SipError, match=sentence):
        test._call("tls")


def test_events_service_that_does_not_answer_is_named():
    address = options()["servers"]["udp"]  # nothing listens there
    (problem,) = verification(events=address)._ask_events()
    assert problem.startswith(f"the events service on port {address.split(':')[1]} is not connected to Asterisk (")
    assert problem.endswith("; run playbook events.yml, and see journalctl --unit=labredes-events")
    assert verification(events="")._ask_events() == []


def test_documentation_has_the_options_of_the_module(monkeypatch):
    documented = yaml.safe_load(verify_exchange.DOCUMENTATION)["options"]
    seen = {}

    def capture(argument_spec, **_more):
        seen.update(argument_spec)
        raise SystemExit

    monkeypatch.setattr(verify_exchange, "AnsibleModule", capture)
    with pytest.raises(SystemExit):
        verify_exchange.main()

    def facts(spec):
        return {
            name: (item.get("type", "str"), item.get("default"), item.get("required", False))
            for name, item in spec.items()
        }

    assert facts(seen) == facts(documented)


class Journal:
    """A journal that has seen so many records, and in which some wait, the next time fewer."""

    path = "/var/lib/labredes-cdr/journal.db"

    def __init__(self, written, waiting):
        self.seen, self.waits, self.removed = written, list(waiting), []

    def written(self):
        return self.seen

    def waiting(self, _account):
        return self.waits.pop(0) if len(self.waits) > 1 else self.waits[0]

    def remove(self, account):
        self.removed.append(account)
        self.waits = [0]

    def events(self, _channels):
        return self.waiting("")

    def remove_events(self, channels):
        self.removed.append(channels)


@pytest.mark.parametrize(
    ("written", "waiting", "sentence"),
    [
        (1, [1, 1, 0], None),
        (0, [0], "Asterisk has written 0 of 1 records to the journal /var/lib/labredes-cdr/journal.db; see"),
        (1, [1], "1 of 1 records still wait in the journal; see journalctl --unit=labredes-cdr"),
    ],
)
def test_record_has_to_come_through_the_journal(written, waiting, sentence):
    test = verification()
    test.records, test.journal, test.written = Records([GOOD]), Journal(written + 7, waiting), 7
    problems = test._read_records({"udp": {"seconds": 1.5}})
    assert [problem.startswith(sentence or "-") for problem in problems] == [True] * bool(sentence)


def test_record_that_waits_is_removed_after_it_has_gone():
    """What is forwarded after the removal would stay."""
    test = verification()
    test.records, test.journal = Records([{}]), Journal(1, [1, 0])
    test._remove_records()
    assert len(test.records.statements) == 2 and test.journal.removed == []


def test_record_that_goes_on_waiting_is_removed_from_the_journal():
    test = verification()
    test.records, test.journal = Records([{}]), Journal(1, [1])
    test._remove_records()
    assert test.journal.removed == ["verify-"]


def test_channel_events_of_the_calls_are_removed():
    test = verification(cel=True)
    test.records, test.journal = Records([{}]), Journal(1, [0])
    test._remove_records()
    assert "FROM cel" in test.records.statements[-1] and test.journal.removed == ["PJSIP/verify-"]


def test_journal_counts_what_was_written_and_what_waits(tmp_path):
    path = tmp_path / "journal.db"
    with pytest.raises(verify_exchange.DatabaseError, match="it is missing"):
        cdr_journal.CdrJournal(str(path)).written()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE cel_1 (AcctId INTEGER PRIMARY KEY, channame TEXT)")
        connection.executemany("INSERT INTO cel_1 VALUES (NULL, ?)", [("PJSIP/verify-tcp-1",), ("PJSIP/6001-1",)])
        for table in ("cdr_1", "cdr_2", "others"):
            connection.execute(f"CREATE TABLE {table} (AcctId INTEGER PRIMARY KEY AUTOINCREMENT, accountcode TEXT)")
            connection.executemany(f"INSERT INTO {table} VALUES (NULL, ?)", [("verify-1",), ("",)])
        connection.execute("DELETE FROM cdr_1")
    connection.close()
    journal = cdr_journal.CdrJournal(str(path))
    assert (journal.written(), journal.waiting("verify-")) == (4, 1)
    journal.remove("verify-")
    assert (journal.written(), journal.waiting("verify-"), journal.waiting("")) == (4, 0, 1)
    assert (journal.events("PJSIP/verify-"), journal.events("")) == (1, 2)
    journal.remove_events("PJSIP/verify-")
    assert (journal.events("PJSIP/verify-"), journal.events("")) == (0, 1)
