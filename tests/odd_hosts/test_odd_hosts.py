"""A host with what its owners left on it: other databases, Debian's Asterisk, odd settings. `make odd-hosts`."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import odd_host
import playbook
import pytest

# /tmp without programs, files of root for root alone, a locale that is missing, no addresses of IPv6, a name with dots
# that nothing resolves, so that sudo complains, and the passwords for SSH that cloud-init allows.
SETTINGS = """
mount -t tmpfs -o noexec,nosuid,nodev,mode=1777 tmpfs /tmp
echo 'Defaults umask=0077, umask_override' > /etc/sudoers.d/10-umask
echo LANG=es_ES.UTF-8 > /etc/default/locale
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
hostname pbx.odd.example.org
echo 'PasswordAuthentication yes' > /etc/ssh/sshd_config.d/50-cloud-init.conf
systemctl reload ssh
"""
# What an upgrade at work holds, for some seconds.
UPGRADE = """
systemd-run --quiet --unit=upgrade-of-others python3 -c "
import fcntl, time
file = open('/var/lib/dpkg/lock-frontend', 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
time.sleep(60)"
"""
# The cluster at PostgreSQL's port is not called main, and main has another port.
CLUSTERS = """
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt-get -qq update
apt-get -qq -y --no-install-recommends install postgresql asterisk > /dev/null 2>&1
pg_conftool $(ls /etc/postgresql) main set port 5433
pg_ctlcluster $(ls /etc/postgresql) main restart
pg_createcluster $(ls /etc/postgresql) office --port 5432 --start > /dev/null 2>&1
cd /
runuser -u postgres -- createdb --port 5432 invoices
runuser -u postgres -- createdb --port 5433 stock
runuser -u postgres -- psql -q --port 5432 -c 'CREATE TABLE bills AS SELECT 52 AS total' invoices
runuser -u postgres -- psql -q --port 5433 -c 'CREATE TABLE parts AS SELECT 50 AS left' stock
echo 'host invoices all 198.51.100.0/24 md5' | tee -a /etc/postgresql/*/office/pg_hba.conf
"""
# A change of its configuration, a database that root wrote, data sources of others, and a user with another number,
# another home and files there.
ASTERISK = """
systemctl stop asterisk
echo '; by hand' >> /etc/asterisk/extensions.conf
chown root:root /var/lib/asterisk/astdb.sqlite3
printf '[accounts]\\nDriver=other\\n' > /etc/odbc.ini
usermod --uid 1500 --shell /bin/sh asterisk
install -d -o asterisk /srv/asterisk
install -o asterisk /etc/hostname /srv/asterisk/recording
usermod --home /srv/asterisk asterisk
chown -R asterisk /var/log/asterisk /var/spool/asterisk
systemctl start asterisk
"""
# /var on a partition of its own with less space than is needed.
SMALL_VAR = """
mkdir -p /small
mount -t tmpfs -o size=100m tmpfs /small
mkdir /small/upper /small/work
mount -t overlay -o lowerdir=/var,upperdir=/small/upper,workdir=/small/work overlay /var
"""
# An archive of Ubuntu of which the host knows main alone, as the live server's medium of 18.04 leaves it.
UBUNTU = """
mkdir -p /srv/ubuntu/dists/bionic
cd /srv/ubuntu/dists/bionic
for component in main universe; do
  mkdir -p $component/binary-amd64
  printf 'Package: of-%s\\nVersion: 1\\nArchitecture: all\\nFilename: a.deb\\nSize: 1\\n' $component \
      > $component/binary-amd64/Packages
done
printf '%s\\n' 'Origin: Ubuntu' 'Suite: bionic' 'Components: main universe' 'Architectures: amd64' SHA256: > Release
for file in */binary-amd64/Packages; do
  echo " $(sha256sum < $file | cut -c1-64) $(stat -c %s $file) $file" >> Release
done
systemd-run --quiet --unit=ubuntu --working-directory=/srv/ubuntu python3 -m http.server --bind 127.0.0.1 8018
echo 'Acquire::AllowInsecureRepositories "true";' > /etc/apt/apt.conf.d/ubuntu
echo 'deb http://127.0.0.1:8018/ bionic main' > /etc/apt/sources.list.d/ubuntu.list
sleep 1
apt-get -qq update 2> /dev/null
"""
LISTED = "labredes.pbx.preflight : List the installed"  # what follows a look at the platform
STATE = "dpkg-query --show; find /etc -xdev -type f ! -name '*.cache' -exec sha256sum {} + | sort"


@pytest.fixture(name="bare", scope="module")
def fixture_bare():
    """The host before its owners had it, made for this module and removed after it."""
    with odd_host.made("odd-hosts") as host:
        yield host


@pytest.fixture(name="host", scope="module")
def fixture_host(bare):
    """The host with what its owners left."""
    # The settings last: without its locale PostgreSQL's package makes no cluster.
    for part in (CLUSTERS, ASTERISK, SETTINGS):
        bare.inside(part, seconds=300)
    return bare


@pytest.fixture(name="finished", scope="module")
def fixture_finished(host):
    """The host and the output of site.yml, which has run on it."""
    return host, " ".join(host.play().split())


def test_check_mode_changes_nothing_on_a_bare_host(bare):
    before = bare.inside(STATE)
    assert re.search(r"changed=[1-9]", bare.play("--check", "--diff")), "everything is to be done"
    assert bare.inside(STATE) == before


def test_check_mode_names_the_package_that_it_needs(bare):
    bare.inside("apt-get -qq -y remove python3-apt")
    try:
        done = playbook.play(bare.directory, "--check", playbook="playbooks/upgrade.yml")
    finally:
        bare.inside("apt-get -qq update; apt-get -qq -y install python3-apt", seconds=120)
    assert done.returncode and "check mode needs the package python3-apt on the host" in " ".join(done.stdout.split())


def test_universe_is_enabled_beside_main_alone(bare, tmp_path):
    tasks = [{"name": "Enable universe", "include_role": {"name": "labredes.pbx.system", "tasks_from": "universe.yml"}}]
    book = tmp_path / "universe.yml"
    book.write_text(json.dumps([{"name": "Enable universe", "hosts": "pbx", "become": True, "tasks": tasks}]))
    bare.inside(UBUNTU)
    try:
        runs = [playbook.play(bare.directory, *words, playbook=str(book)) for words in (["--check"], [], [])]
        checked, first, second = (" ".join(run.stdout.split()) for run in runs)
        assert runs[0].returncode and "check mode ends here, since the packages of universe" in checked
        assert "universe, which has fail2ban and libraries of Asterisk, was not enabled; it is now" in first, first
        assert runs[2].returncode == 0 and re.findall(r"changed=(\d+)", first + second) == ["1", "0"]
        assert bare.inside("apt-cache show of-universe | head -n 1") == "Package: of-universe"
    finally:
        bare.inside(
            "rm /etc/apt/*/ubuntu* /etc/apt/*/labredes-universe.list; systemctl stop ubuntu; apt-get -qq update"
        )


def test_other_distribution_is_refused_by_name(bare):
    release = "ID=ubuntu\nNAME=Ubuntu\nVERSION_ID=25.10\nVERSION_CODENAME=questing"
    bare.inside(f"printf '{release}\n' > /run/os-release; mount --bind /run/os-release /etc/os-release")
    try:
        said = bare.refusal(last=LISTED)
    finally:
        bare.inside("umount /etc/os-release")
    assert "Ubuntu 25.10 (questing) is not supported; set the host up with Ubuntu bionic, focal, jammy, noble" in said


def test_old_python_is_refused_by_version(bare):
    """The modules of ansible-core 2.16 run on it."""
    bare.inside("apt-get -qq update; apt-get -qq -y install python2", seconds=120)
    said = bare.refusal("-e", "ansible_python_interpreter=/usr/bin/python2", last=LISTED)
    assert re.search(r"Python 2\.7\.\d+ is not supported; set ansible_python_interpreter to one from 3.6", said), said


def test_cluster_of_others_is_not_moved(host):
    assert "other ports than labredes_database_port 5999" in host.refusal("-e", "labredes_database_port=5999")


def test_database_in_another_encoding_is_refused(host):
    options = "--port 5432 --template template0 --locale C --encoding"
    host.inside(f"cd /; runuser -u postgres -- createdb {options} SQL_ASCII former")
    try:
        said = host.refusal("-e", "labredes_database_name=former")
    finally:
        host.inside("cd /; runuser -u postgres -- dropdb --port 5432 former")
    assert "office has the database former in the encoding SQL_ASCII; make it anew from a dump" in said


def test_asterisk_that_runs_by_hand_is_refused(host):
    host.inside("systemd-run --quiet --unit=by-hand --uid=asterisk sleep 600")
    try:
        assert re.search(r"outside the service asterisk: process \d+ \(sleep\); stop it", host.refusal())
    finally:
        host.inside("systemctl stop by-hand")


def test_user_who_can_log_in_is_refused(host):
    host.inside("mkdir -p ~asterisk/.ssh; echo key > ~asterisk/.ssh/authorized_keys")
    try:
        assert "the user asterisk can log in, and could not any more" in host.refusal()
    finally:
        host.inside("rm -r ~asterisk/.ssh")


def test_small_partition_of_var_is_refused(host):
    host.inside(SMALL_VAR)
    try:
        said = host.refusal(last="labredes.pbx.system : Wait for the packages")
    finally:
        host.inside("umount -l /var; umount -l /small")
    assert re.search(r"/var has \d{1,3} MB free, and what is installed in /var needs 500 MB; free some", said), said


def test_site_takes_the_host_over_and_loses_nothing(finished):
    host, said = finished
    assert "files are kept as /etc/asterisk.before-labredes, /etc/odbc.ini.before-labredes." in said
    assert "do not purge the distribution's package asterisk, which is replaced" in said
    assert "office has other databases (invoices), whose rules in pg_hba.conf stay" in said
    assert "by hand" in host.inside("cat /etc/asterisk.before-labredes/extensions.conf")
    assert "[accounts]" in host.inside("cat /etc/odbc.ini.before-labredes")
    # The records, their rules and their users are in one cluster; the other one is as it was.
    assert host.psql("SELECT to_regclass('cdr')") == "cdr"
    assert len({host.psql("SHOW password_encryption", "postgres", port) for port in (5432, 5433)}) == 1
    assert "invoices all 198.51.100.0/24 md5" in host.inside("cat /etc/postgresql/*/office/pg_hba.conf")
    assert host.inside("grep -l labredes -r /etc/postgresql/*/main || true") == ""
    assert [host.psql("TABLE bills", "invoices"), host.psql("TABLE parts", "stock", 5433)] == ["52", "50"]
    assert host.psql("SELECT count(*) FROM pg_roles WHERE rolname = 'asterisk'", "postgres", 5433) == "0"


def test_settings_of_the_owners_were_in_force(finished):
    """All through the run, and are afterwards."""
    host, _ = finished
    assert host.inside("findmnt -no OPTIONS /tmp | grep -o noexec") == "noexec"
    lab = [sys.executable, odd_host.ROOT / "lab/lab.py", "ssh", "--dir", host.directory, "--cmd"]
    line = "umask; echo $LANG; locale -a; hostname"
    done = subprocess.run([*lab, line], capture_output=True, text=True, timeout=60, check=True)
    said = done.stdout.split()
    assert said[:2] == ["0077", "es_ES.UTF-8"] and said[-1] == "pbx.odd.example.org", done.stdout
    assert not [line for line in said[2:] if line.lower().startswith("es_es")]
    assert host.inside("ip -6 address show") == ""


def test_user_of_asterisk_keeps_its_number_and_files(finished):
    host, _ = finished
    number, home, shell = (host.inside("getent passwd asterisk").split(":")[field] for field in (2, 5, 6))
    assert (number, home, shell) == ("1500", "/var/lib/asterisk", "/usr/sbin/nologin")
    assert host.inside("stat -c %u /srv/asterisk/recording /var/spool/asterisk /var/lib/asterisk/astdb.sqlite3") == (
        "1500\n1500\n1500"
    )
    assert host.inside("ps -C asterisk -o uid=").split() == ["1500"]


def test_passwords_of_a_drop_in_let_nobody_in(finished):
    host, _ = finished
    assert host.inside("sshd -T | grep ^passwordauthentication") == "passwordauthentication no"
    assert host.inside("cat /etc/ssh/sshd_config.d/50-cloud-init.conf") == "PasswordAuthentication yes"


def test_run_waits_for_an_upgrade_at_work(finished):
    host, _ = finished
    host.inside("apt-get -qq -y remove debsums")
    host.inside(UPGRADE)
    said = " ".join(host.play("--tags=system").split())
    assert "which holds apt's lock" in said
    assert host.inside("dpkg-query --show --showformat '${db:Status-Status}' debsums") == "installed"


def test_second_run_changes_nothing(finished):
    finished[0].unchanged()


def test_start_at_a_task_without_connection_is_refused(finished):
    """Tasks that a play leaves out find the port and gather facts, which decide what files contain."""
    host, _ = finished
    start = ["-e", "ansible_port=3524", "--start-at-task", "List what is kept under each number"]
    done = playbook.play(host.directory, *start)
    assert done.returncode and "no facts of the host; run without --start-at-task, or" in " ".join(done.stdout.split())
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}


def test_changed_address_reaches_the_certificate(finished):
    host, _ = finished
    former = host.inside("hostname -I").split()[0]
    for command in (["disconnect"], ["connect"]):
        odd_host.podman("network", *command, "podman", host.name)
    address = host.inside("hostname -I").split()[0]
    assert address != former
    path = host.directory / "inventory/hosts.yml"
    path.write_text(path.read_text().replace(f'"{former}"', f'"{address}"'))
    host.play()
    names = host.inside("openssl x509 -in /etc/ssl/labredes/certificate.pem -noout -ext subjectAltName")
    assert f"IP Address:{address}" in names and former not in names
    host.unchanged()


def test_root_without_sudo_runs_it(finished):
    """The program that a run becomes postgres by is missing; su has no need of it."""
    host, _ = finished
    host.inside("install -D -m 0600 ~admin/.ssh/authorized_keys ~root/.ssh/authorized_keys")
    host.play("--tags=harden", "-e", json.dumps({"sshd_allow_users": ["admin", "root"]}))
    host.inside("SUDO_FORCE_REMOVE=yes apt-get -qq -y remove sudo")
    root = ["-e", json.dumps({"ansible_user": "root", "sshd_allow_users": ["admin", "root"]})]
    try:
        assert "sudo is not installed, with which a run becomes the user postgres" in host.refusal(*root)
        host.unchanged(*root, "-e", "ansible_become_method=su")
    finally:
        host.inside("apt-get -qq -y install sudo", seconds=120)
    done = playbook.play(host.directory, "--tags=harden")
    assert done.returncode == 0, done.stdout[-3000:]
