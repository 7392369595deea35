"""A router with port forwards in front of the lab host, and phones behind a router of their own on the other side.

The phones know only the outside address of the exchange's router. Both routers translate addresses, as they do at home:

    phones 192.168.77.2 - their router 198.51.100.2 - 198.51.100.1 the exchange's router - lab host

Over IPv6, where nothing is translated, the same wires carry fd00:77::/64 and fd00:88::/64.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from outside_host import OutsideHost, within_network

HERE = Path(__file__).resolve().parent
OUTSIDE, HOST6 = "198.51.100.1", "fd00:88::2"
# {host}, {sip}, {tls}, {rtp}: what is forwarded. {phones}: the process whose network the phones use.
ROUTER = """
ip link add outside type veth peer name outside netns {phones}
ip address add 198.51.100.1/24 dev outside
ip address add fd00:77::1/64 dev outside nodad
ip address add fd00:88::1/64 dev eth0 nodad
ip link set outside up
sysctl --quiet net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
iptables -t nat -A PREROUTING -i outside -p udp -m multiport --dports {sip},{rtp} -j DNAT --to-destination {host}
iptables -t nat -A PREROUTING -i outside -p tcp -m multiport --dports {sip},{tls} -j DNAT --to-destination {host}
iptables -t nat -A POSTROUTING -o outside -j MASQUERADE
iptables -A FORWARD -i outside -m conntrack --ctstate ESTABLISHED,DNAT -j ACCEPT
iptables -A FORWARD -i outside -j DROP
"""
PHONES_ROUTER = """
ip link set lo up
ip address add 192.168.77.2/32 dev lo
ip address add 198.51.100.2/24 dev outside
ip address add fd00:77::2/64 dev outside nodad
ip link set outside up
sysctl --quiet net.ipv4.conf.outside.arp_announce=2
ip route replace 198.51.100.0/24 dev outside src 192.168.77.2
ip route add default via 198.51.100.1 src 192.168.77.2
ip route add fd00:88::/64 via fd00:77::1
iptables -t nat -A POSTROUTING -o outside -s 192.168.77.2 -j SNAT --to-source 198.51.100.2
"""
# The host knows the hardware address of an earlier router, and would try it first.
HOST = f"""
ip neighbour flush dev eth0 to {{router}}
ip neighbour flush dev eth0 to fd00:88::1
ip route replace 198.51.100.0/24 via {{router}}
ip address replace {HOST6}/64 dev eth0 nodad
ip route replace fd00:77::/64 via fd00:88::1
"""


class Nat:
    """The routers and the phones; a context manager, which leaves nothing behind."""

    def __init__(self, directory: Path, lab: dict, on_lab):
        self.lab, self.on_lab, self.router = lab, on_lab, OutsideHost(directory, "router")

    def __enter__(self) -> Nat:
        self.router.__enter__()
        # A network that exists as long as this process.
        self.phones = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        try:
            while Path(f"/proc/{self.phones.pid}/comm").read_text() != "sleep\n":
                time.sleep(0.01)
            sip = self.lab["sip"]
            forwarded = {"host": self.lab["host"], "sip": sip["udp"], "tls": sip["tls"], "rtp": "10000:11999"}
            self._in_network(self.router.process, ROUTER.format(phones=self.phones.pid, **forwarded))
            self._in_network(self.phones.pid, PHONES_ROUTER)
            self.on_lab(HOST.format(router=self.router.address))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_problem) -> None:
        self.phones.kill()
        self.phones.wait()
        self.router.__exit__()
        self.on_lab(f"ip route delete 198.51.100.0/24; ip address delete {HOST6}/64 dev eth0; true")

    def calls(self, ends: list[dict], seconds: float, count: int = 1) -> list[dict]:
        """Calls from one phone outside to another, one after the other, as outside_phones.place() does."""
        logins = {number: phone["password"] for number, phone in self.lab["phones"].items()}
        given = json.dumps({"logins": logins, "ends": ends, "seconds": seconds, "count": count})
        program = [sys.executable, str(HERE / "outside_phones.py")]
        done = self._in_network(self.phones.pid, given, *program, seconds=60 + 15 * count)
        return [json.loads(line) for line in done.splitlines()]

    @staticmethod
    def _in_network(process: int, given: str, *program: str, seconds: float = 30) -> str:
        """Run a program, or a script of the shell, in the network of a process, with this machine's own programs."""
        command = [*within_network(process), *(program or ("sh", "-eu"))]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout
