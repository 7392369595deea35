"""A host with what its owners left on it: other databases, Debian's Asterisk, odd settings. `make odd-hosts`."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/site"))

import playbook  # noqa: E402

NAME = "pbx-odd-hosts-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
# /tmp without programs, files of root for root alone, a locale that is missing, and a name with dots that nothing
# resolves, so that sudo complains.
SETTINGS = """
mount -t tmpfs -o noexec,nosuid,nodev,mode=1777 tmpfs /tmp
echo 'Defaults umask=0077, umask_override' > /etc/sudoers.d/10-umask
echo LANG=es_ES.UTF-8 > /etc/default/locale
hostname pbx.odd.example.org
"""
# The cluster at PostgreSQL's port is not called main, and main has another port.
CLUSTERS = """
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends install postgresql asterisk > /dev/null 2>&1
pg_conftool $(ls /etc/postgresql) main set port 5433
pg_ctlcluster $(ls /etc/postgresql) main restart
pg_createcluster $(ls /etc/postgresql) office --port 5432 --start > /dev/null 2>&1
cd /
runuser -u postgres -- createdb --port 5432 invoices
runuser -u postgres -- createdb --port 5433 stock
echo 'host invoices all 198.51.100.0/24 md5' | tee -a /etc/postgresql/*/office/pg_hba.conf
"""
# A change of its configuration, a database that root wrote, and data sources of others.
ASTERISK = """
echo '; by hand' >> /etc/asterisk/extensions.conf
chown root:root /var/lib/asterisk/astdb.sqlite3
printf '[accounts]\\nDriver=other\\n' > /etc/odbc.ini
usermod --shell /bin/sh asterisk
"""


class Host:
    """The host: commands on it, without SSH, and playbooks."""

    def __init__(self, directory: Path):
        self.directory = directory

    def inside(self, line: str, seconds: float = 60) -> str:
        """The output of a shell line."""
        command = ["podman", "exec", NAME, "sh", "-ec", line]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refusal(self, *arguments: str) -> str:
        """The output of the first playbook that changes a host, which must end before it does."""
        done = playbook.play(self.directory, *arguments, playbook="playbooks/upgrade.yml")
        assert done.returncode and "TASK [labredes.pbx.system : " not in done.stdout, done.stdout[-3000:]
        return " ".join(done.stdout.split())


@pytest.fixture(name="host", scope="module")
def fixture_host():
    """The host, made for this module and removed after it."""
    directory = ROOT / ".lab" / "odd-hosts"
    lab = [sys.executable, ROOT / "lab/lab.py"]
    subprocess.run([*lab, "down", "--dir", directory, "--name", NAME], check=False)
    subprocess.run([*lab, "create", "--dir", directory, "--name", NAME], check=True, timeout=600)
    host = Host(directory)
    # The settings last: without its locale PostgreSQL's package makes no cluster.
    for part in (CLUSTERS, ASTERISK, SETTINGS):
        host.inside(part, seconds=300)
    yield host
    subprocess.run([*lab, "down", "--dir", directory, "--name", NAME], check=True)


def test_cluster_of_others_is_not_moved(host):
    assert "other ports than labredes_database_port 5999" in host.refusal("-e", "labredes_database_port=5999")


def test_asterisk_that_runs_by_hand_is_refused(host):
    host.inside("systemd-run --quiet --unit=by-hand --uid=asterisk sleep 600")
    try:
        assert re.search(r"outside the service asterisk: process \d+ \(sleep\); stop it", host.refusal())
    finally:
        host.inside("systemctl stop by-hand")


def test_user_who_can_log_in_is_refused(host):
    host.inside("mkdir /var/lib/asterisk/.ssh; echo key > /var/lib/asterisk/.ssh/authorized_keys")
    try:
        assert "the user asterisk can log in, and could not any more" in host.refusal()
    finally:
        host.inside("rm -r /var/lib/asterisk/.ssh")


def test_site_takes_the_host_over_and_loses_nothing(host):
    done = playbook.play(host.directory, seconds=900)
    assert done.returncode == 0, done.stdout[-4000:]
    said = " ".join(done.stdout.split())
    assert "files are kept as /etc/asterisk.before-labredes, /etc/odbc.ini.before-labredes." in said
    assert "office has other databases (invoices), whose rules in pg_hba.conf stay" in said
    assert "by hand" in host.inside("cat /etc/asterisk.before-labredes/extensions.conf")
    assert "[accounts]" in host.inside("cat /etc/odbc.ini.before-labredes")
    # The records, their rules and their users are in one cluster; the other one is as it was.
    ask = "cd /; runuser -u postgres -- psql -At -p"
    assert host.inside(f"{ask} 5432 asterisk -c \"SELECT to_regclass('cdr')\"") == "cdr"
    assert len({host.inside(f"{ask} {port} postgres -c 'SHOW password_encryption'") for port in (5432, 5433)}) == 1
    assert "invoices all 198.51.100.0/24 md5" in host.inside("cat /etc/postgresql/*/office/pg_hba.conf")
    assert host.inside("grep -l labredes -r /etc/postgresql/*/main || true") == ""
    assert host.inside(f"{ask} 5433 postgres -c \"SELECT count(*) FROM pg_roles WHERE rolname = 'asterisk'\"") == "0"


def test_second_run_changes_nothing(host):
    done = playbook.play(host.directory)
    assert done.returncode == 0, done.stdout[-4000:]
    changed = re.findall(r"TASK \[.*\n(?:.*\n)?changed:.*", done.stdout)
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, changed
