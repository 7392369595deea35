"""The installation of packages on a host that is busy with its own upgrade, or whose last one was interrupted."""

from __future__ import annotations

from playbook import play

# As apt and dpkg lock it.
HOLD = (
    "import fcntl, time; lock = open('/var/lib/dpkg/lock-frontend', 'w'); "
    "fcntl.lockf(lock, fcntl.LOCK_EX); time.sleep(30)"
)


def test_installation_waits_for_the_lock_of_apt(lab_directory, on_lab):
    on_lab("apt-get -qq -y purge debsums", seconds=60)
    on_lab(f'systemd-run --quiet --collect --unit=upgrade-of-the-test python3 -c "{HOLD}"')
    done = play(lab_directory, playbook="playbooks/system_packages.yml", seconds=200)
    assert done.returncode == 0, done.stdout[-3000:]
    assert ": waiting for process " in done.stdout and "which holds apt's lock" in done.stdout
    assert on_lab("dpkg-query --show --showformat='${db:Status-Status}' debsums") == "installed"


def test_interrupted_installation_is_completed(lab_directory, on_lab):
    on_lab("apt-get -qq -y purge debsums", seconds=60)
    # As dpkg leaves its journal when it is killed before it configures what it has unpacked.
    on_lab("dpkg-query --status acl | sed 's/^Status: .*/Status: install ok unpacked/' > /var/lib/dpkg/updates/0000")
    done = play(lab_directory, playbook="playbooks/system_packages.yml", seconds=200)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "completing an installation that was interrupted (dpkg --configure -a)" in done.stdout
    states = on_lab("dpkg-query --show --showformat='${db:Status-Status} ' debsums acl; ls /var/lib/dpkg/updates")
    assert states == "installed installed "
