"""Role postgresql: the database of the call records, for its owner alone."""

from __future__ import annotations

from pathlib import Path

import pytest

# A call record as Asterisk writes it.
RECORD = {
    "calldate": "now()",
    **dict.fromkeys(["clid", "dcontext", "channel", "dstchannel", "lastapp", "lastdata"], "''"),
    **dict.fromkeys(["accountcode", "userfield", "peeraccount"], "''"),
    "src": "'6001'",
    "dst": "'6002'",
    "disposition": "'ANSWERED'",
    **dict.fromkeys(["duration", "billsec", "amaflags", "sequence"], "1"),
    "uniqueid": "'test'",
    "linkedid": "'test'",
}


def psql(host, query: str, options: str = "") -> str:
    """The answer to a query by the superuser."""
    return host.check_output(f'cd / && sudo -u postgres psql --no-psqlrc -Atq {options} -d asterisk -c "{query}"')


@pytest.fixture(scope="module")
def password(lab_directory) -> str:
    """The generated password of the database's owner."""
    (secret,) = Path(lab_directory / "secrets").rglob("database_password")
    return secret.read_text().strip()


def test_server_runs_and_starts_at_boot(host):
    assert host.service("postgresql").is_running
    assert host.service("postgresql").is_enabled


def test_server_listens_on_the_host_alone(host):
    listening = host.check_output("ss -Hltn 'sport = :5432'").splitlines()
    addresses = {line.split()[3] for line in listening}
    assert addresses and addresses <= {"127.0.0.1:5432", "[::1]:5432"}


def test_owner_writes_and_reads_a_call_record(host, password):
    login = f"PGPASSWORD='{password}' psql --no-psqlrc -Atq -h localhost -U asterisk asterisk"
    query = f"INSERT INTO cdr ({', '.join(RECORD)}) VALUES ({', '.join(RECORD.values())}) RETURNING src"
    try:
        assert host.check_output(f'{login} -c "{query}"') == "6001"
        assert host.run(f'{login} -c "{query}"').rc != 0, "the same record twice"
    finally:
        psql(host, "DELETE FROM cdr WHERE uniqueid = 'test'")


def test_wrong_password_is_refused(host):
    login = host.run("PGPASSWORD=wrong psql --no-psqlrc -h localhost -U asterisk asterisk -c 'SELECT 1'")
    assert login.rc != 0 and "password authentication failed" in login.stderr


def test_owner_is_no_superuser(host):
    assert psql(host, "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'asterisk'") == "f|f|f"
