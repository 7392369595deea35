"""What a stranger reaches of the host, and how long he may guess; an administrator is never shut out."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import sipp
from playbook import play

HERE = Path(__file__).resolve().parent
OPEN = [3524, 5060, 5061, 8089]
TRANSPORTS = ["udp", "tcp", "tls", "wss"]
GUESSES = 5
ASTERISK, SSHD = "labredes-asterisk", "labredes-sshd"


@pytest.fixture(scope="module")
def addresses(lab, on_lab) -> dict[int, str]:
    """The host's addresses by IP version; as IPv6 the one of the link, which is there without any router."""
    link = re.search(r"inet6 (fe80::\S+)/64", on_lab("ip -6 addr show dev eth0 scope link"))
    return {4: lab["host"], 6: f"{link[1]}%eth0" if link else ""}


@pytest.fixture
def listener(on_lab):
    """A service on the host, over IPv4 and IPv6, that nobody asked the firewall to let in: its port."""
    on_lab("systemd-run --quiet --unit=listener-of-test python3 -m http.server --bind :: 18080")
    assert sipp.within(10, lambda: "18080" in on_lab("ss -Hltn sport = :18080"))
    yield 18080
    on_lab("systemctl stop listener-of-test")


@pytest.fixture
def guess(lab, stranger):
    """A function that has the stranger register as a user and gives the codes of the answers, `-` for none."""

    def register(transport: str, user: str = "6001", password: str = "wrong", times: int = GUESSES) -> list[str]:
        return stranger.python("guesser.py", *of(lab, transport, user, password, times)).split()

    return register


@pytest.fixture(autouse=True)
def nobody_is_banned(on_lab):
    """Every test begins and ends with no ban."""
    on_lab("fail2ban-client unban --all")
    yield
    on_lab("fail2ban-client unban --all")


def of(lab: dict, transport: str, user: str, password: str, times: int) -> list[object]:
    """The arguments of the guesser."""
    return [transport, lab["host"], lab["sip"][transport], user, password, times]


def reaches(stranger, address: str, port: int = 3524) -> bool:
    """Whether the stranger gets a TCP connection within so long that the kernel asks twice."""
    tried = f"import socket; socket.create_connection(({address!r}, {port}), 2.5); print('in')"
    return stranger.run("python3", "-c", tried).strip() == "in"


def banned(on_lab, jail: str) -> list[str]:
    """The addresses that a jail has banned."""
    return re.search(r"Banned IP list:\s*(.*)", on_lab(f"fail2ban-client status {jail}"))[1].split()


def test_a_stranger_reaches_the_allowed_tcp_ports_and_no_other(stranger, addresses, listener, on_lab):
    on_lab(
        f"python3 -c \"import urllib.request as u; u.urlopen('http://[::1]:{listener}'); u.urlopen('http://127.0.0.1:{listener}')\""
    )
    found = stranger.scan(*filter(None, addresses.values()))
    assert sorted(found[addresses[4]]["open"]) == OPEN and found[addresses[4]]["refused"] == []
    if not addresses[6]:
        pytest.skip("this machine gives its containers no IPv6")
    # SIP is bound to IPv4 by default: the firewall lets IPv6 through to where nobody listens.
    assert sorted(found[addresses[6]]["open"]) == [3524]
    assert sorted(found[addresses[6]]["refused"]) == [5060, 5061, 8089]


def test_a_stranger_reaches_sip_and_rtp_over_udp_and_no_other(stranger, addresses):
    asked = """
import socket, sys
for port in (5060, 10000, 11999, 9999, 12000, 53, 5061, 4569):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(0.7)
        one.connect((sys.argv[1], port))
        one.send(b"OPTIONS sip:x SIP/2.0\\r\\nVia: SIP/2.0/UDP %s:%d;branch=z9hG4bKx;rport\\r\\nFrom: <sip:x@x>;tag=x\\r\\n"
                 b"To: <sip:x@x>\\r\\nCall-ID: x\\r\\nCSeq: 1 OPTIONS\\r\\nContent-Length: 0\\r\\n\\r\\n"
                 % (one.getsockname()[0].encode(), one.getsockname()[1]))
        try:
            print(port, one.recv(100)[:7].decode())
        except ConnectionRefusedError:
            print(port, "refused")
        except OSError:
            print(port, "silent")
"""
    told = dict(line.split() for line in stranger.run("python3", "-", addresses[4], given=asked).splitlines())
    assert told.pop("5060") == "SIP/2.0"
    # In RTP's range nobody listens until there is a call; that is told, not hidden.
    assert told.pop("10000") == told.pop("11999") == "refused"
    assert len(told) == 5 and set(told.values()) == {"silent"}, told


def test_a_stranger_is_answered_a_ping(stranger, addresses):
    for address in filter(None, addresses.values()):
        assert "1 received" in stranger.run("ping", "-c", "1", "-W", "2", address)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_guesser_of_sip_is_banned_from_everything_and_an_administrator_is_not(
    transport, guess, lab, stranger, on_lab
):
    ours = [sys.executable, HERE / "guesser.py"]
    told = subprocess.run(
        [*ours, *map(str, of(lab, transport, "6001", "wrong", GUESSES + 1))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout.split()
    assert told == ["401"] * (GUESSES + 1)
    assert guess(transport)[0] == "401"
    assert sipp.within(10, lambda: banned(on_lab, ASTERISK) == [stranger.address]), on_lab(
        f"fail2ban-client status {ASTERISK}"
    )
    right = {"user": "6001", "password": lab["phones"]["6001"]["password"], "times": 1}
    assert guess(transport, **right) == ["-"] and not reaches(stranger, lab["host"])
    ours += map(str, of(lab, transport, **right))
    assert subprocess.run(ours, capture_output=True, text=True, timeout=60, check=False).stdout.split() == ["200"]
    on_lab(f"fail2ban-client set {ASTERISK} unbanip {stranger.address}")
    # With the right password: what fail2ban has counted towards the next ban stays counted.
    assert guess(transport, **right) == ["200"] and reaches(stranger, lab["host"])


def test_a_guesser_of_names_is_banned(guess, stranger, on_lab):
    guess("udp", "nobody")
    assert sipp.within(10, lambda: banned(on_lab, ASTERISK) == [stranger.address])


def test_a_guesser_cannot_have_somebody_else_banned_nor_hide(guess, stranger, on_lab):
    """Asterisk writes the name and the session as they were sent, quotes and all."""
    guess("udp", "a%22,RemoteAddress=%22IPV4/UDP/9.9.9.9/5%22,X=%22")
    assert sipp.within(10, lambda: banned(on_lab, ASTERISK) == [stranger.address])


def test_a_phone_that_registers_again_and_again_is_not_banned(guess, lab, stranger, on_lab):
    assert guess("udp", password=lab["phones"]["6001"]["password"], times=3 * GUESSES) == ["200"] * 3 * GUESSES
    lines = f"grep -F '/{stranger.address}/' /var/log/asterisk/security | tail -n {6 * GUESSES}"
    read = on_lab(
        f"{lines} >/tmp/lines; fail2ban-regex /tmp/lines /etc/fail2ban/filter.d/{ASTERISK}.conf; rm /tmp/lines"
    )
    assert re.search(rf"^Lines: {6 * GUESSES} lines, 0 ignored, 0 matched, {6 * GUESSES} missed", read, re.MULTILINE), (
        read
    )
    assert banned(on_lab, ASTERISK) == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("user", ["root", "nobody-of-here"])
def test_a_guesser_of_ssh_is_banned_from_everything(version, user, addresses, lab, stranger, on_lab):
    if not addresses[version]:
        pytest.skip("this machine gives its containers no IPv6")
    stranger.run("sh", "-c", "test -e /tmp/key || ssh-keygen -q -t ed25519 -N '' -f /tmp/key")
    login = (
        "ssh -i /tmp/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=2 "
        f"-p 3524 {user}@{addresses[version]} true 2>&1"
    )
    assert "Permission denied" in stranger.run("sh", "-c", f"for i in $(seq {GUESSES}); do {login}; done")
    assert sipp.within(10, lambda: len(banned(on_lab, SSHD)) == 1), on_lab("journalctl -t sshd -n 20")
    assert not reaches(stranger, addresses[version])
    assert version == 6 or not reaches(stranger, lab["host"], 5060)
    on_lab(f"fail2ban-client set {SSHD} unbanip {banned(on_lab, SSHD)[0]}")
    assert reaches(stranger, addresses[version])


def test_firewall_and_bans_outlive_a_restart_of_either(guess, lab, stranger, on_lab):
    guess("udp")
    assert sipp.within(10, lambda: banned(on_lab, ASTERISK) == [stranger.address])
    for line in ("systemctl reload nftables", "systemctl restart nftables", "systemctl restart fail2ban"):
        on_lab(line)
        assert sipp.within(10, lambda: banned(on_lab, ASTERISK) == [stranger.address]), line
        assert sipp.within(5, lambda: not reaches(stranger, lab["host"])), line
        assert "policy drop" in on_lab("nft list chain inet labredes input"), line
    on_lab(f"fail2ban-client set {ASTERISK} unbanip {stranger.address}")
    assert reaches(stranger, lab["host"])


def test_rules_that_were_not_proved_go_back_by_themselves(lab, on_lab):
    """As if the controller had died after it had tried rules that shut out everybody."""

    def way_in() -> bool:
        try:
            socket.create_connection((lab["host"], 3524), timeout=0.5).close()
        except OSError:
            return False
        return True

    proved = on_lab("cat /etc/nftables.conf")
    on_lab("grep -v 'accept comment' /etc/nftables.conf >/etc/nftables.conf.labredes-new && labredes-firewall try 4")
    assert not way_in()
    assert sipp.within(15, way_in)
    assert on_lab("cat /etc/nftables.conf; ls /etc/nftables.conf.labredes-new 2>&1 || true").startswith(proved)
    assert on_lab("systemctl list-timers --all --no-legend 'labredes-*'") == ""


def test_data_that_would_close_the_way_in_is_refused(room, on_lab):
    before = on_lab("nft list table inet labredes; cat /etc/nftables.conf")
    closed = json.dumps({"labredes_ssh_networks": ["192.0.2.0/24"], "labredes_admin_networks": []})
    done = play(room, "-e", closed, playbook="playbooks/harden.yml", seconds=120)
    assert done.returncode and re.search(
        r"the firewall would close SSH to \S+, from where this run\s+comes in at port 3524", done.stdout
    )
    assert re.search(r"changed=0 .* failed=1", done.stdout), done.stdout[-2000:]
    strip = re.compile(r"packets \d+ bytes \d+")
    assert strip.sub("", on_lab("nft list table inet labredes; cat /etc/nftables.conf")) == strip.sub("", before)
