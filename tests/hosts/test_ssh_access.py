"""SSH access on a host of its own: whenever a run dies, the administrator can log in and run the playbook again."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import playbook
import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "pbx-ssh-access-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
SECONDS = 8  # after which the host itself rolls back
QUICK = {"sshd_rollback_seconds": SECONDS, "firewall_rollback_seconds": SECONDS}
# Each step of the port move on a new host, and when the run is killed there.
MOVE = [
    "Copy sshd_config and start the rollback timer#1:after",
    "Write sshd_config#1:after",
    "Reload sshd#1:after",
    "Write sshd_config#2:after",
    "Reload sshd#2:after",
    "Confirm the configuration#1:after",
    "Start the rollback timer and apply the rules#1:after",
]
# Of these, where sshd runs another configuration than it has on disk, or one that nothing has proved yet.
UNPROVED = ["Write sshd_config#1:after", "Write sshd_config#2:after", "Reload sshd#2:after"]
# The same on a finished host whose description has changed.
CHANGE = ["Write sshd_config#1:after", "Reload sshd#1:after", "Confirm the configuration#1:before"]
# The move where the firewall is in force already, which opens the new port first and closes the old one last.
LATER_MOVE = [f"Start the rollback timer and apply the rules#{number}:after" for number in (1, 2)]


class Administrator:
    """Logs in to a bare host by key, runs playbooks on it, and resets it."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.output = ""
        self.address = self.inside("cp /etc/ssh/sshd_config /var/lib; hostname -I").split()[0]

    def inside(self, line: str) -> str:
        """The output of a shell line on the host, without SSH."""
        done = subprocess.run(
            ["podman", "exec", NAME, "sh", "-ec", line], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def login(self, port: int, line: str, **pipes: int) -> subprocess.Popen[bytes]:
        """A shell line that runs on the host in a session of its own."""
        options = ["BatchMode=yes", "ConnectTimeout=2", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        command = ["ssh", "-q", "-F", "none", "-i", self.directory / "key", *(f"-o{option}" for option in options)]
        return subprocess.Popen([*command, "-p", str(port), f"admin@{self.address}", line], **pipes)

    def ports(self) -> list[int]:
        """The ports on which a login by key with sudo works; tried again where none does, since a reload takes time."""
        open_ports: list[int] = []
        for pause in (0.5, 0):
            tried = {port: self.login(port, "sudo -n true") for port in (22, 3524)}
            open_ports = [port for port, login in tried.items() if login.wait(30) == 0]
            if open_ports:
                break
            time.sleep(pause)
        return open_ports

    def play(self, killed_at: str = "", **variables: object) -> int:
        """Run playbooks/harden.yml; returns its exit code, -9 when it was killed. Its output is kept, without wraps."""
        done = playbook.play(
            self.directory,
            "-e",
            json.dumps(variables),
            playbook="playbooks/harden.yml",
            killed_at=killed_at,
            seconds=300,
        )
        self.output = " ".join(done.stdout.split())
        return done.returncode

    def reset(self) -> None:
        """Restore sshd and the firewall of the new host, whose host keys nobody knows yet."""
        (self.directory / "known_hosts").unlink(missing_ok=True)
        self.inside(
            "systemctl stop labredes-sshd-rollback.timer labredes-firewall-rollback.timer 2>/dev/null || true;"
            "rm -f /etc/ssh/*labredes* /etc/ssh/sshd_config.original /etc/ssh/sshd_config.d/*;"
            "[ ! -e /usr/local/sbin/labredes-firewall ] || labredes-firewall remove;"
            "cp /var/lib/sshd_config /etc/ssh; systemctl reload ssh"
        )

    def wait_for_rollback(self) -> None:
        """Until the timer, if one was started, has ended; a login works at every moment."""
        end = time.monotonic() + SECONDS + 10
        timers = "systemctl list-units --no-legend 'labredes-*-rollback.timer'"
        while self.inside(f"ls /etc/ssh/*.before-labredes 2>/dev/null || true; {timers}"):
            assert self.ports(), "locked out while waiting for the rollback"
            assert time.monotonic() < end, "the rollback timer did not fire"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def admin():
    """The administrator of a new host, made for this module and removed after it."""
    directory = ROOT / ".lab" / "ssh-access"
    lab = [sys.executable, ROOT / "lab/lab.py"]
    subprocess.run([*lab, "down", "--dir", directory, "--name", NAME], check=False)
    subprocess.run([*lab, "create", "--bare", "--dir", directory, "--name", NAME], check=True, timeout=900)
    yield Administrator(directory)
    subprocess.run([*lab, "down", "--dir", directory, "--name", NAME], check=True)


def assert_move_is_completed(admin: Administrator, step: str) -> None:
    """Kill the move of the port at a step; a login works at every moment, and the next run completes the move."""
    assert admin.play(killed_at=step, **QUICK) == -signal.SIGKILL, admin.output
    assert admin.ports(), "locked out at once"
    admin.wait_for_rollback()
    assert admin.ports(), "locked out after the rollback"
    assert admin.play() == 0, admin.output
    assert admin.ports() == [3524]


@pytest.mark.parametrize("step", MOVE)
def test_killed_port_move_keeps_ssh_access(admin, step):
    admin.reset()
    assert admin.ports() == [22]
    assert_move_is_completed(admin, step)


@pytest.mark.parametrize("step", LATER_MOVE)
def test_killed_port_move_behind_the_firewall_keeps_ssh_access(admin, step):
    admin.reset()
    assert admin.play(labredes_ssh_port=22) == 0, admin.output
    assert_move_is_completed(admin, step)
    accepted = [line for line in admin.inside("nft list chain inet labredes input").splitlines() if '"ssh"' in line]
    assert accepted and all("dport { 3524 } accept" in line for line in accepted)


def test_open_session_outlives_the_first_firewall(admin):
    """One that is idle meanwhile, so that conntrack has seen none of its packets."""
    admin.reset()
    assert admin.ports() == [22]
    session = admin.login(22, "echo open; cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert session.stdout and session.stdout.readline() == b"open\n"
    assert admin.play() == 0, admin.output
    assert admin.ports() == [3524]
    answer, _ = session.communicate(b"still here\n", timeout=10)
    assert answer == b"still here\n"


@pytest.mark.parametrize("step", UNPROVED)
def test_killed_port_move_can_be_rerun_at_once(admin, step):
    """Before the rollback timer fires: the second run meets what the first one left."""
    admin.reset()
    assert admin.play(killed_at=step, firewall_rollback_seconds=60, sshd_rollback_seconds=60) == -signal.SIGKILL
    assert admin.play() == 0, admin.output
    assert admin.ports() == [3524]
    assert admin.inside("systemctl list-units --no-legend 'labredes-*.timer'; ls /etc/ssh").count("before") == 0


@pytest.mark.parametrize("step", CHANGE)
def test_killed_change_keeps_ssh_access(admin, step):
    assert admin.play() == 0, admin.output
    assert admin.play(killed_at=step, **QUICK, sshd_max_auth_tries=5) == -signal.SIGKILL
    assert admin.ports() == [3524], "locked out at once"
    assert admin.play(sshd_max_auth_tries=5) == 0, admin.output
    assert admin.ports() == [3524]


def test_unproved_configuration_is_never_confirmed(admin):
    """Killed between writing and reloading AllowUsers without the connecting user, whom only ssh's own options name."""
    assert admin.play() == 0, admin.output
    path = admin.directory / "inventory/hosts.yml"
    inventory = path.read_text()
    content = json.loads(inventory.removeprefix("---"))
    host = content["pbx"]["hosts"][NAME]
    host["ansible_ssh_common_args"] += f" -o User={host.pop('ansible_user')}"
    change = {"sshd_allow_users": ["operator"], "sshd_rollback_seconds": 60}
    try:
        path.write_text("---\n" + json.dumps(content))
        assert admin.play(killed_at="Write sshd_config#1:after", **change) == -signal.SIGKILL
        assert admin.play(**change) != 0
        assert "sshd keeps its configuration, on port 3524" in admin.output, admin.output
        assert admin.ports() == [3524]
        assert "operator" not in admin.inside("cat /etc/ssh/sshd_config")
    finally:
        path.write_text(inventory)


def test_port_in_use_is_refused_before_any_change(admin):
    admin.reset()
    admin.inside("systemd-run --quiet --unit=taken --collect python3 -m http.server 3524")
    try:
        assert admin.play() != 0
        assert "another program listens on port 3524" in admin.output
        assert admin.ports() == [22]
        assert not admin.inside("ls /etc/ssh/*.before-labredes 2>/dev/null || true")
    finally:
        admin.inside("systemctl stop taken")


def test_keys_from_elsewhere_are_refused_or_kept(admin):
    """A drop-in as FreeIPA and the like write it; the administrator's own key comes from its program alone."""
    keys = {
        "AuthorizedKeysCommand": "/bin/cat /etc/ssh/directory",
        "AuthorizedKeysCommandUser": "nobody",
        "AuthorizedKeysFile": "/etc/ssh/keys/%u",
        "TrustedUserCAKeys": "/etc/ssh/ca.pub",
    }
    lines = "\n".join(" ".join(line) for line in keys.items())
    admin.reset()
    admin.inside(
        "cd /etc/ssh; cp ssh_host_ed25519_key.pub ca.pub; cp ~admin/.ssh/authorized_keys directory;"
        f"chmod 0644 directory; mkdir -p sshd_config.d; echo '{lines}' > sshd_config.d/50-directory.conf;"
        "systemctl reload ssh"
    )
    assert admin.ports() == [22]
    assert admin.play() != 0
    for keyword in ("AuthorizedKeysCommand", "AuthorizedKeysFile", "TrustedUserCAKeys"):
        assert f"{keyword.lower()} {keys[keyword]}" in admin.output.partition("sshd takes keys of users from ")[2]
    assert admin.ports() == [22]
    assert "Include" in admin.inside("cat /etc/ssh/sshd_config")
    assert admin.play(sshd_user_keys=keys) == 0, admin.output
    assert admin.ports() == [3524], "the key comes from the program"
    assert "trustedusercakeys /etc/ssh/ca.pub" in admin.inside("sshd -T")
    assert "Include" in admin.inside("cat /etc/ssh/sshd_config.original")
    # From now on the description decides; a key of the user's own is there again.
    assert admin.play() == 0, admin.output
    assert admin.ports() == [3524]
    assert {"trustedusercakeys none", "authorizedkeyscommand none"} < set(admin.inside("sshd -T").splitlines())


def test_match_blocks_are_refused_or_kept(admin):
    """Beside a drop-in as cloud-init writes it, which would allow passwords."""
    admin.reset()
    admin.inside(
        "mkdir -p /etc/ssh/sshd_config.d; cd /etc/ssh/sshd_config.d;"
        "echo PasswordAuthentication yes > 50-cloud-init.conf;"
        "printf 'Match Group confined\n    ForceCommand internal-sftp\n' > 60-files.conf; systemctl reload ssh"
    )
    assert admin.play() != 0
    assert "has Match blocks that would not apply any more (Match group confined); repeat them" in admin.output
    assert admin.ports() == [22]
    blocks = [{"criteria": "Group confined", "settings": {"ForceCommand": "internal-sftp"}}]
    assert admin.play(sshd_match_blocks=blocks) == 0, admin.output
    assert admin.ports() == [3524]
    # The group is that of a user's supplementary groups, so any user of it would do.
    admin.inside("groupadd --force confined; id guest >/dev/null 2>&1 || useradd --groups confined guest")
    effective = admin.inside("sshd -T -C user=guest,host=h,addr=192.0.2.1")
    assert "forcecommand internal-sftp" in effective and "passwordauthentication no" in effective


def test_socket_of_systemd_gives_way_to_sshd(admin):
    """With its socket systemd holds port 22, whatever sshd_config says."""
    admin.reset()
    admin.inside("systemctl disable --quiet --now ssh.service; systemctl enable --quiet --now ssh.socket")
    try:
        assert admin.ports() == [22]
        assert admin.play() == 0, admin.output
        # Also after the end of the sessions that began at the socket.
        admin.inside("systemctl stop 'ssh@*.service'")
        assert admin.ports() == [3524]
        assert admin.inside("systemctl is-enabled ssh.service; systemctl is-active ssh.service") == "enabled\nactive\n"
    finally:
        admin.inside("systemctl disable --quiet --now ssh.socket; systemctl enable --quiet --now ssh.service")


def test_configuration_that_locks_out_is_rolled_back(admin):
    """By the run, which cannot prove it; and by the host, when the run is dead."""
    deny = {"__sshd_extra": {"DenyUsers": "admin"}, **QUICK}
    admin.reset()
    assert admin.play(**deny) != 0
    assert "sshd keeps its configuration, on port 22" in admin.output
    assert admin.ports() == [22]
    assert admin.play(killed_at="Reload sshd#1:after", **deny) == -signal.SIGKILL
    assert admin.ports() == [], "the fault that this test plants does nothing"
    time.sleep(SECONDS)
    assert admin.ports() == [22]


def test_second_run_is_refused_until_the_first_ends(admin):
    """A second terminal meets the lock on the host; kill -9 of the first run frees it within seconds."""
    admin.reset()
    first = subprocess.Popen(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            "playbooks/harden.yml",
            "-i",
            admin.directory / "inventory",
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while not admin.inside("pgrep -f '^bash -c echo locked' || true"):
            assert time.monotonic() < end, "the first run takes no lock"
            time.sleep(0.2)
        assert admin.play() != 0
        assert f"pid {first.pid}) is at work on it" in admin.output
    finally:
        first.kill()
        first.wait()
    assert admin.play() == 0, admin.output
