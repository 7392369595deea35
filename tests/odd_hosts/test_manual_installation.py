"""A host on which its owners installed Asterisk by hand becomes the exchange and keeps what they had. `make odd-hosts`.

lab/manual_installation.py makes it. Its description is what a careful owner writes: several files, a vault, a password
for sudo.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import odd_host
import pytest

# Columns of the owners' table.
COLUMNS = (
    "calldate, clid, src, dst, dcontext, channel, dstchannel, lastapp, lastdata, duration, billsec, disposition,"
    " amaflags, accountcode, uniqueid, userfield, peeraccount, linkedid, sequence"
)
RECORDS = f"SELECT md5(ROW({COLUMNS})::text) FROM cdr"
SUMS = "cd {} && find . -type f -exec sha256sum {{}} + | sort"
MAILBOX = "/var/spool/asterisk/voicemail/from-internal/6001"
PASSWORD = "Obelix"  # of the owners' database


@pytest.fixture(name="host", scope="module")
def fixture_host():
    """The host, which its owners use."""
    with odd_host.made("manual-installation") as host:
        program = [sys.executable, odd_host.ROOT / "lab/manual_installation.py", "--dir", host.directory]
        subprocess.run(program, check=True, timeout=900)
        yield host


@pytest.fixture(name="description", scope="module")
def fixture_description(host, tmp_path_factory) -> Path:
    """A directory with an inventory of several files, in which another exchange cannot be reached."""
    directory = tmp_path_factory.mktemp("description")
    groups = host.inventory()
    hosts, data = groups["pbx"]["hosts"], groups["all"].pop("vars")
    connection = {**hosts[host.name], "ansible_user": "antonio", "sshd_allow_users": ["admin", "antonio"]}
    vaulted = {"vault_sudo": "Idefix", "vault_phone": "Vercingetorix-52-BC"}
    data |= {"ansible_become_password": "{{ vault_sudo }}", "labredes_secrets": {"phone_6001": "{{ vault_phone }}"}}
    files = {
        "hosts.yml": {**groups, "pbx": {"hosts": {host.name: {}}}},
        "more.yml": {"pbx": {"hosts": {"paris": {"ansible_host": "192.0.2.9"}}}},
        f"host_vars/{host.name}/connection.yml": connection,
        "group_vars/pbx/exchange.yml": data,
        "group_vars/pbx/vault.yml": vaulted,
    }
    for name, content in files.items():
        path = directory / "inventory" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    (directory / "password").write_text("Panoramix\n")
    vault = [
        Path(sys.executable).with_name("ansible-vault"),
        "encrypt",
        "--vault-password-file",
        directory / "password",
    ]
    subprocess.run([*vault, directory / "inventory/group_vars/pbx/vault.yml"], check=True, capture_output=True)
    return directory


@pytest.fixture(name="options", scope="module")
def fixture_options(host, description) -> list[str]:
    """The options of each run."""
    return ["--limit", host.name, "--vault-password-file", str(description / "password")]


@pytest.fixture(name="refused", scope="module")
def fixture_refused(host, description, options) -> str:
    """The output of a run while the owners' Asterisk runs."""
    return host.refusal(*options, directory=description)


@pytest.fixture(name="before", scope="module")
def fixture_before(host, refused) -> dict[str, str]:
    """What the owners have, after they have stopped their Asterisk."""
    host.inside("asterisk -rx 'core stop now'; while pgrep -x asterisk; do sleep 0.2; done")
    return {
        "records": host.psql(f"{RECORDS} ORDER BY 1"),
        "configuration": host.inside(SUMS.format("/etc/asterisk")),
        "modules": host.inside(SUMS.format("/usr/lib/asterisk")),
        "program": host.inside("sha256sum < /usr/sbin/asterisk"),
        "voicemail": host.inside(SUMS.format("/var/spool/asterisk/voicemail")),
        "calls": host.inside("cat /var/log/asterisk/cdr-csv/Master.csv"),
        "access": host.inside("cat /etc/ssh/sshd_config"),
    }


@pytest.fixture(name="exchange", scope="module")
def fixture_exchange(host, description, options, before):
    """The host and the output of site.yml, which has run on it."""
    return host, " ".join(host.play(*options, directory=description).split())


def test_asterisk_that_runs_is_refused(refused, before):
    assert re.search(r"outside the service asterisk: process \d+ \(asterisk\); stop it and what starts it", refused)
    assert "paris" not in refused, "--limit leaves it out"
    assert "/cdr_pgsql.conf" in before["configuration"], "the run has changed something"


def test_records_of_the_owners_are_kept(exchange, before):
    host, said = exchange
    rows = before["records"].splitlines()
    assert len(rows) >= 5
    # The new columns have numbered the rows that were there.
    assert host.psql(f"{RECORDS} WHERE id <= {len(rows)} ORDER BY 1").splitlines() == rows
    # Those of the run's own calls had the next numbers; the run deletes them again.
    assert "call records found in PostgreSQL" in said
    assert int(host.psql("SELECT last_value FROM cdr_id_seq")) > len(rows)
    assert int(host.psql("SELECT count(*) FROM cdr")) == len(rows)
    assert host.psql("SELECT caller, dialled, result, talking FROM calls WHERE at < '2021-03-11 17:03'") == (
        "6001|6002|ANSWERED|40"
    )
    assert host.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'cdr'") == "asterisk"


def test_files_of_the_owners_are_kept_and_named(exchange, before):
    host, said = exchange
    assert "files are kept as /etc/asterisk.before-labredes, /usr/lib/asterisk.before-labredes." in said
    assert "do not purge the distribution's package asterisk, which is replaced" in said
    # With the rules of logrotate, which are of the distribution's package.
    configuration = host.inside(f"{SUMS.format('/etc/asterisk.before-labredes')} | grep -v ' ./logrotate.d$'")
    assert configuration == before["configuration"]
    assert "invoke-rc.d asterisk" in host.inside("cat /etc/asterisk.before-labredes/logrotate.d")
    assert "/keys/certificate.pem" in before["configuration"] and "/keys/certificate.p12" in before["configuration"]
    kept = host.inside(SUMS.format("/usr/lib/asterisk.before-labredes"))
    assert set(before["modules"].splitlines()) < set(kept.splitlines())
    assert host.inside("sha256sum < /usr/lib/asterisk.before-labredes/asterisk") == before["program"]
    assert host.inside("cat /etc/ssh/sshd_config.original") == before["access"]


def test_messages_forwards_and_logs_stay_in_use(exchange, before):
    host, _ = exchange
    now = host.inside(SUMS.format("/var/spool/asterisk/voicemail"))
    assert set(before["voicemail"].splitlines()) <= set(now.splitlines()) and "INBOX/msg0000.wav" in now
    assert host.inside(f"find {MAILBOX} ! -user asterisk") == ""
    assert re.search(r"from-internal +6001 .* 1$", host.inside("asterisk -rx 'voicemail show users'"), re.MULTILINE)
    assert "6003" in host.inside("asterisk -rx 'database get REDIRECT 6002'")
    assert host.inside("cat /var/log/asterisk/cdr-csv/Master.csv") == before["calls"]


def test_passwords_of_the_owners_let_nobody_in(exchange):
    host, _ = exchange
    login = f"PGPASSWORD={PASSWORD} psql -h localhost -U asterisk asterisk -c 'SELECT 1' 2>&1 || true"
    assert "password authentication failed" in host.inside(login)
    assert host.psql("SELECT rolcreatedb FROM pg_roles WHERE rolname = 'asterisk'") == "f"
    assert host.inside("ss -Hltn 'sport = 5038'").split()[3] == "127.0.0.1:5038"
    assert host.inside("grep -rhE 'unsecurepassword|secret = password' /etc/asterisk || true") == ""
    # What the vault has is in use.
    assert "Vercingetorix-52-BC" in host.inside("cat /etc/asterisk/pjsip.conf")


def test_program_is_that_of_the_package(exchange):
    host, _ = exchange
    assert host.inside("dpkg --verify labredes-asterisk") == ""
    assert host.inside("ps -C asterisk -o user=").split() == ["asterisk"]
    loaded = host.inside("cat /proc/$(pidof asterisk)/maps")
    assert "/usr/lib/asterisk/modules/chan_pjsip.so" in loaded and "before-labredes" not in loaded


def test_another_run_changes_nothing(exchange, description, options):
    host, _ = exchange
    said = host.unchanged(*options, directory=description)
    assert "paris" not in said
