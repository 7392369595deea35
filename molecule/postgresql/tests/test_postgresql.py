"""Role postgresql: the database of the call records, for its owner alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

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
def converge(lab_directory, ssh_port):
    """A function that runs the scenario's playbook with other variables, and returns its output in one line."""
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [program, "molecule/postgresql/converge.yml", "-i", lab_directory / "inventory"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment = {**inherited, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}

    def run(refused: bool = False, **variables: object) -> str:
        given = json.dumps({"ansible_port": ssh_port, **variables})
        done = subprocess.run(
            [*command, "-e", given], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert bool(done.returncode) == refused, done.stdout[-3000:]
        return re.sub(r"\s+", " ", done.stdout)

    return run


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


def test_renamed_user_and_table_are_retired_with_their_data(host, converge):
    login = "SELECT rolcanlogin, rolpassword IS NULL FROM pg_authid WHERE rolname = 'asterisk'"
    psql(host, "INSERT INTO cdr (calldate, uniqueid) VALUES (now(), 'kept')")
    renamed = {"labredes_database_user": "records", "labredes_database_table": "calls"}
    try:
        output = converge(**renamed)
        assert "a former role asterisk, which may no longer log in" in output
        assert "a former table cdr, which stays" in output
        assert psql(host, login) == "f|t"
        assert psql(host, "SELECT count(*) FROM cdr WHERE uniqueid = 'kept'") == "1"
        output = converge(**renamed)
        assert "changed=0 " in output and "has a former" not in output
    finally:
        converge()
        psql(host, "DELETE FROM cdr WHERE uniqueid = 'kept'; DROP TABLE calls; DROP ROLE records")
    assert psql(host, login) == "t|f"


def test_renamed_database_stays_and_is_reported(host, converge):
    try:
        assert "a former database asterisk, which stays" in converge(labredes_database_name="exchange")
        assert psql(host, "SELECT to_regclass('cdr')") == "cdr"
    finally:
        converge()
        psql(host, "DROP DATABASE exchange")


def test_role_of_another_exchange_keeps_its_login(host, converge):
    """Two exchanges on one server, each with a database and a role of its own."""
    other = {"labredes_database_name": "branch", "labredes_database_user": "branch"}
    try:
        assert "has a former" not in converge(**other)
        assert "has a former" not in converge()
        assert psql(host, "SELECT rolcanlogin FROM pg_roles WHERE rolname IN ('asterisk', 'branch')") == "t\nt"
    finally:
        psql(host, "DROP DATABASE branch")
        psql(host, "DROP ROLE branch")


def test_refused_rule_leaves_the_rules_of_others(host, converge):
    """In the file of a cluster that was not the role's own, with a comment in Latin-1, as older editors write it."""
    directory = host.check_output("ls -d /etc/postgresql/*/main")
    look = f"sha256sum {directory}/pg_hba.conf; stat -c '%a %U:%G' {directory}/pg_hba.conf; ls {directory}/conf.d"
    psql(host, "CREATE DATABASE invoices")
    try:
        host.check_output(f"rm {directory}/conf.d/labredes.conf; printf '# Conexi\\363n\\n' >> {directory}/pg_hba.conf")
        before = host.check_output(look)
        rule = "hostssl invoices invoices 192.0.2.0/24 scram-sha-256 unknown=1"
        for _ in range(2):
            output = converge(refused=True, postgresql_extra_hba_rules=[rule])
            assert 'unrecognized authentication option name: \\"unknown\\"' in output
            assert "the former one is restored" in output
            assert host.check_output(look) == before
    finally:
        psql(host, "DROP DATABASE invoices")
        converge()
