"""The installation of packages on a host that is busy with its own upgrade."""

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
    done = play(lab_directory, playbook="playbooks/system.yml", seconds=200)
    assert done.returncode == 0, done.stdout[-3000:]
    assert ": waiting for process " in done.stdout and "which holds apt's lock" in done.stdout
    assert on_lab("dpkg-query --show --showformat='${db:Status-Status}' debsums") == "installed"
