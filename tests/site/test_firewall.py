"""What the host exposes, and how brute-force attempts are banned; an administrator is never locked out."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sipp
from playbook import play

HERE = Path(__file__).resolve().parent
OPEN = [3524, 5060, 5061, 8089]
TRANSPORTS = ["tcp", "tls", "wss"]
ATTEMPTS = 5
ASTERISK, UDP, SSHD = "labredes-asterisk", "labredes-asterisk-udp", "labredes-sshd"
SECURITY = "/var/log/asterisk/security"


@pytest.fixture(scope="module")
def addresses(lab, on_lab) -> dict[int, str]:
    """The host's addresses by IP version; as IPv6 the link-local one, which needs no router."""
    link = re.search(r"inet6 (fe80::\S+)/64", on_lab("ip -6 addr show dev eth0 scope link"))
    return {4: lab["host"], 6: f"{link[1]}%eth0" if link else ""}


@pytest.fixture
def listener(on_lab):
    """The port of a service on the host, over IPv4 and IPv6, that no rule of the firewall accepts."""
    on_lab("systemd-run --quiet --unit=listener-of-test python3 -m http.server --bind :: 18080")
    assert sipp.within(10, lambda: "18080" in on_lab("ss -Hltn sport = :18080"))
    yield 18080
    on_lab("systemctl stop listener-of-test")


@pytest.fixture
def attack(lab, outside_host):
    """A function that registers as a user from the outside host and returns the response codes, `-` for none."""

    def register(transport: str, user: str = "6001", password: str = "wrong", times: int = ATTEMPTS) -> list[str]:
        return outside_host.python("attacker.py", *attacker_arguments(lab, transport, user, password, times)).split()

    return register


@pytest.fixture
def sends(lab, outside_host):
    """A function that has senders.py do something on the outside host and returns what it prints."""

    def run(what: str, number: int, password: str | None = None, port: int = 5060) -> list[str]:
        return outside_host.python("senders.py", *sender_arguments(lab, what, number, password, port)).split()

    return run


@pytest.fixture
def failures(outside_host, on_lab):
    """A function that returns the times, in seconds, of the outside host's wrong passwords since the test began."""
    begun = int(on_lab(f"wc -l <{SECURITY}"))

    def times() -> list[int]:
        lines = f"tail -n +{begun + 1} {SECURITY} | grep -F ChallengeResponseFailed"
        found = on_lab(f"{lines} | grep -F '/{outside_host.address}/' | cut -c13-20 || true").split()
        return [
            sum(int(part) * unit for part, unit in zip(line.split(":"), (3600, 60, 1), strict=True)) for line in found
        ]

    return times


@pytest.fixture(autouse=True)
def no_bans(on_lab):
    """Every test begins and ends without bans."""
    on_lab("fail2ban-client unban --all")
    yield
    on_lab("fail2ban-client unban --all")


def attacker_arguments(lab: dict, transport: str, user: str, password: str, times: int) -> list[object]:
    """The arguments of attacker.py."""
    return [transport, lab["host"], lab["sip"][transport], user, password, times]


def sender_arguments(lab: dict, what: str, number: int, password: str | None = None, port: int = 5060) -> list[object]:
    """The arguments of senders.py; the password is the right one unless another is given."""
    return [lab["host"], port, "6001", password or lab["phones"]["6001"]["password"], what, number]


def here(program: str, arguments: list[object]) -> list[str]:
    """What a program of this directory prints on this machine, whose address is an administrator's."""
    command = [sys.executable, HERE / program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.split()


def connects(outside_host, address: str, port: int = 3524) -> bool:
    """Whether the outside host gets a TCP connection within the time of two SYNs."""
    tried = f"import socket; socket.create_connection(({address!r}, {port}), 2.5); print('connected')"
    return outside_host.run("python3", "-c", tried).strip() == "connected"


def banned(on_lab, jail: str) -> list[str]:
    """The banned addresses of a jail."""
    return re.search(r"Banned IP list:\s*(.*)", on_lab(f"fail2ban-client status {jail}"))[1].split()


def test_only_allowed_tcp_ports_are_open(outside_host, addresses, listener, on_lab):
    on_lab(
        f"python3 -c \"import urllib.request as u; u.urlopen('http://[::1]:{listener}'); u.urlopen('http://127.0.0.1:{listener}')\""
    )
    found = outside_host.scan(*filter(None, addresses.values()))
    assert sorted(found[addresses[4]]["open"]) == OPEN and found[addresses[4]]["refused"] == []
    if not addresses[6]:
        pytest.skip("this machine gives its containers no IPv6")
    # WSS listens on IPv4 by default: the firewall accepts IPv6 on its port, where nobody listens.
    assert sorted(found[addresses[6]]["open"]) == [3524, 5060, 5061]
    assert found[addresses[6]]["refused"] == [8089]


def test_only_sip_and_rtp_are_open_over_udp(outside_host, addresses):
    asked = """
import socket, sys
for port in (5060, 10000, 11999, 9999, 12000, 53, 5061, 4569):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(0.7)
        one.connect((sys.argv[1], port))
        one.send(b"OPTIONS sip:x SIP/2.0\\r\\nVia: SIP/2.0/UDP %s:%d;branch=z9hG4bKx;rport\\r\\n"
                 b"From: <sip:x@x>;tag=x\\r\\nTo: <sip:x@x>\\r\\nCall-ID: x\\r\\n"
                 b"CSeq: 1 OPTIONS\\r\\nContent-Length: 0\\r\\n\\r\\n"
                 % (one.getsockname()[0].encode(), one.getsockname()[1]))
        try:
            print(port, one.recv(100)[:7].decode())
        except ConnectionRefusedError:
            print(port, "refused")
        except OSError:
            print(port, "silent")
"""
    results = dict(line.split() for line in outside_host.run("python3", "-", addresses[4], given=asked).splitlines())
    assert results.pop("5060") == "SIP/2.0"
    # Without a call nothing listens in the RTP range, so the host refuses.
    assert results.pop("10000") == results.pop("11999") == "refused"
    assert len(results) == 5 and set(results.values()) == {"silent"}, results


def test_ping_is_answered(outside_host, addresses):
    for address in filter(None, addresses.values()):
        assert "1 received" in outside_host.run("ping", "-c", "1", "-W", "2", address)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sip_brute_force_is_banned_but_never_an_administrator(transport, attack, lab, outside_host, on_lab):
    wrong = attacker_arguments(lab, transport, "6001", "wrong", ATTEMPTS + 1)
    assert here("attacker.py", wrong) == ["401"] * (ATTEMPTS + 1)
    assert attack(transport)[0] == "401"
    assert sipp.within(10, lambda: banned(on_lab, ASTERISK) == [outside_host.address]), on_lab(
        f"fail2ban-client status {ASTERISK}"
    )
    right = {"user": "6001", "password": lab["phones"]["6001"]["password"], "times": 1}
    assert attack(transport, **right) == ["-"] and not connects(outside_host, lab["host"], 5060)
    assert connects(outside_host, lab["host"]), "SSH was not attacked"
    assert here("attacker.py", attacker_arguments(lab, transport, **right)) == ["200"]
    on_lab(f"fail2ban-client set {ASTERISK} unbanip {outside_host.address}")
    # With the right password: what fail2ban has counted towards the next ban stays counted.
    assert attack(transport, **right) == ["200"]


def test_attempts_on_unknown_sip_users_are_banned(attack, outside_host, on_lab):
    attack("tcp", "nobody")
    assert sipp.within(10, lambda: banned(on_lab, ASTERISK) == [outside_host.address])


def test_forged_log_fields_ban_only_the_attacker(attack, outside_host, on_lab):
    """Asterisk logs the user name as sent, quotes included."""
    attack("tcp", "a%22,RemoteAddress=%22IPV4/TCP/9.9.9.9/5%22,X=%22")
    assert sipp.within(10, lambda: banned(on_lab, ASTERISK) == [outside_host.address])


def test_repeated_registration_is_not_banned(attack, lab, outside_host, on_lab):
    assert attack("udp", password=lab["phones"]["6001"]["password"], times=3 * ATTEMPTS) == ["200"] * 3 * ATTEMPTS
    lines = f"grep -F '/{outside_host.address}/' /var/log/asterisk/security | tail -n {6 * ATTEMPTS}"
    read = on_lab(
        f"{lines} >/tmp/lines; fail2ban-regex /tmp/lines /etc/fail2ban/filter.d/{ASTERISK}.conf; rm /tmp/lines"
    )
    assert re.search(
        rf"^Lines: {6 * ATTEMPTS} lines, 0 ignored, 0 matched, {6 * ATTEMPTS} missed", read, re.MULTILINE
    ), read
    assert banned(on_lab, ASTERISK) == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("user", ["root", "no-such-user"])
def test_ssh_brute_force_is_banned_from_ssh_alone(version, user, addresses, lab, outside_host, on_lab):
    if not addresses[version]:
        pytest.skip("this machine gives its containers no IPv6")
    outside_host.run("sh", "-c", "test -e /tmp/key || ssh-keygen -q -t ed25519 -N '' -f /tmp/key")
    login = (
        "ssh -i /tmp/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
        f"-o ConnectTimeout=2 -p 3524 {user}@{addresses[version]} true 2>&1"
    )
    assert "Permission denied" in outside_host.run("sh", "-c", f"for i in $(seq {ATTEMPTS}); do {login}; done")
    assert sipp.within(10, lambda: len(banned(on_lab, SSHD)) == 1), on_lab("journalctl -t sshd -n 20")
    assert not connects(outside_host, addresses[version])
    assert version == 6 or connects(outside_host, lab["host"], 5060)
    on_lab(f"fail2ban-client set {SSHD} unbanip {banned(on_lab, SSHD)[0]}")
    assert connects(outside_host, addresses[version])


def test_firewall_and_bans_survive_a_restart_of_either(attack, lab, outside_host, on_lab):
    attack("tcp")
    assert sipp.within(10, lambda: banned(on_lab, ASTERISK) == [outside_host.address])
    for line in ("systemctl reload nftables", "systemctl restart nftables", "systemctl restart fail2ban"):
        on_lab(line)
        assert sipp.within(10, lambda: banned(on_lab, ASTERISK) == [outside_host.address]), line
        assert sipp.within(5, lambda: not connects(outside_host, lab["host"], 5060)), line
        assert "policy drop" in on_lab("nft list chain inet labredes input"), line
    on_lab(f"fail2ban-client set {ASTERISK} unbanip {outside_host.address}")
    assert connects(outside_host, lab["host"], 5060)


def test_attempts_over_udp_are_slowed_down_and_never_banned(sends, failures, attack, lab, outside_host, on_lab):
    """From one port and from new ones, with a nonce that is used again: each datagram is an attempt."""
    sends("attack", 15, password="wrong")
    assert banned(on_lab, UDP) == [outside_host.address] and banned(on_lab, ASTERISK) == []
    times = failures()
    # At most 60 in a minute: those before fail2ban has read the log, then 16 and one each five seconds.
    assert 5 <= len(times) <= 45, times
    assert len([one for one in times if one > min(times) + 5]) <= 12, times
    assert connects(outside_host, lab["host"]) and connects(outside_host, lab["host"], 5060)
    # Nobody else at the address is cut off, neither over TCP nor, more slowly, over UDP.
    right = lab["phones"]["6001"]["password"]
    assert attack("tcp", password=right, times=1) == ["200"] and sends("office", 1)[1:] == ["1"]


def test_forged_datagrams_cut_nobody_off(sends, lab, outside_host, on_lab):
    here("senders.py", sender_arguments(lab, f"forge:{outside_host.address}", 20, password="wrong"))
    assert sipp.within(5, lambda: banned(on_lab, UDP) == [outside_host.address])
    seconds, registered, *_codes = sends("office", 1)
    assert registered == "1" and float(seconds) < 5
    assert banned(on_lab, ASTERISK) == [] and connects(outside_host, lab["host"])


def test_50_phones_behind_one_address_register_at_once(sends, on_lab):
    seconds, registered, *codes = sends("office", 50)
    assert registered == "50" and float(seconds) < 30 and codes == [], (seconds, registered, codes)
    assert banned(on_lab, UDP) == []


def test_idle_connections_do_not_lock_out_others(sends, lab):
    with ThreadPoolExecutor() as executor:
        held = [executor.submit(sends, "idle", 2000, port=port) for port in (5060, 5061)]
        time.sleep(5)
        for transport in ("tcp", "tls"):
            begun = time.monotonic()
            right = attacker_arguments(lab, transport, "6001", lab["phones"]["6001"]["password"], 1)
            assert here("attacker.py", right) == ["200"], transport
            assert time.monotonic() - begun < 2, transport
        assert [one.done() for one in held] == [False, False]
    # More than 50 phones behind one address have.
    assert [100 < int(one.result()[0]) <= 150 for one in held] == [True, True], held


def test_honest_senders_are_neither_banned_nor_slowed_down(sends, attack, lab, on_lab):
    on_lab("systemctl restart fail2ban")  # which forgets the failures that other tests left
    assert sends("options", 2 * ATTEMPTS) == ["401"] * 2 * ATTEMPTS
    assert sends("subscribe", 3) + sends("invite", 3) == ["401"] * 6
    assert sends("stale", 3) == ["200"] * 3
    sends("garbage", 5)
    for transport in ("udp", "tcp"):
        assert attack(transport, times=2) == ["401"] * 2
        assert attack(transport, password=lab["phones"]["6001"]["password"], times=3) == ["200"] * 3
    assert not sipp.within(3, lambda: banned(on_lab, UDP) + banned(on_lab, ASTERISK) + banned(on_lab, SSHD))


def test_uncommitted_rules_are_rolled_back_by_the_timer(lab, on_lab):
    """As if the controller had died after it had applied rules that lock out everybody."""

    def ssh_is_open() -> bool:
        try:
            socket.create_connection((lab["host"], 3524), timeout=0.5).close()
        except OSError:
            return False
        return True

    committed = on_lab("cat /etc/nftables.conf")
    on_lab("grep -v 'accept comment' /etc/nftables.conf >/etc/nftables.conf.labredes-new && labredes-firewall apply 4")
    assert not ssh_is_open()
    assert sipp.within(15, ssh_is_open)
    assert on_lab("cat /etc/nftables.conf; ls /etc/nftables.conf.labredes-new 2>&1 || true").startswith(committed)
    assert on_lab("systemctl list-timers --all --no-legend 'labredes-*-rollback.timer'") == ""


def test_rule_that_is_removed_ends_open_connections(lab, outside_host, on_lab):
    """A phone with a UDP flow and a TCP connection, answered (1) or not (0); the rollback opens them again."""
    program = f"""
import itertools, socket, time
request = ("OPTIONS sip:x SIP/2.0\\r\\nVia: SIP/2.0/%s 192.0.2.1;branch=z9hG4bK%d;rport\\r\\n"
           "From: <sip:6001@x>;tag=x\\r\\nTo: <sip:6001@x>\\r\\nCall-ID: %d\\r\\n"
           "CSeq: 1 OPTIONS\\r\\nContent-Length: 0\\r\\n\\r\\n")
lines = {{"UDP": socket.socket(type=socket.SOCK_DGRAM), "TCP": socket.socket()}}
seen = dict.fromkeys(lines, "")
for one in lines.values():
    one.settimeout(0.3)
    one.connect(({lab["host"]!r}, 5060))
end = time.monotonic() + 12
for count in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count()):
    for name, one in lines.items():
        one.send((request % (name, count, count)).encode())
        try:
            seen[name] += str(int(one.recv(2000)[:7] == b"SIP/2.0"))
        except socket.timeout:
            seen[name] += "0"
    time.sleep(0.2)
print(seen["UDP"], seen["TCP"])
"""
    with ThreadPoolExecutor() as executor:
        phone = executor.submit(outside_host.run, "python3", "-", given=program)
        on_lab("sleep 2; grep -v 'comment \"sip ' /etc/nftables.conf >/etc/nftables.conf.labredes-new")
        on_lab("labredes-firewall apply 3")
        udp, tcp = phone.result().split()
    # One 0 or two are answers that came late, as on a busy machine.
    assert re.fullmatch("(1+00?)*1+0{3,}1+(00?1+)*", udp) and re.match("(1+00?)*1+0{3,}", tcp), (udp, tcp)


def test_rules_that_would_close_ssh_are_refused(lab_directory, on_lab):
    before = on_lab("nft list table inet labredes; cat /etc/nftables.conf")
    closed = json.dumps({"labredes_ssh_networks": ["192.0.2.0/24"], "labredes_admin_networks": []})
    done = play(lab_directory, "-e", closed, playbook="playbooks/harden.yml", seconds=120)
    assert done.returncode and re.search(
        r"the firewall would close SSH to \S+, from which this run\s+connects\s+to port 3524", done.stdout
    )
    assert re.search(r"changed=0 .* failed=1", done.stdout), done.stdout[-2000:]
    strip = re.compile(r"packets \d+ bytes \d+")
    assert strip.sub("", on_lab("nft list table inet labredes; cat /etc/nftables.conf")) == strip.sub("", before)
