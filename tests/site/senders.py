#!/usr/bin/env python3
"""What honest and dishonest senders do to an exchange; it needs Python's standard library only, so it runs on any host.

senders.py ADDRESS PORT USER PASSWORD WHAT NUMBER, where WHAT is
  office   NUMBER phones register over UDP at once and repeat what gets no answer; prints the seconds until the last
  attack   sends wrong passwords over UDP for NUMBER seconds as fast as it can, by turns from one port and from new ones
  forge:A  sends NUMBER registrations over UDP with wrong passwords, as if they came from address A; with the realm of
           the exchange, since Asterisk 18 looks at no password of another
  options, subscribe, invite    sends NUMBER of them over UDP without a login, by an unknown user; prints the answers
  garbage  sends NUMBER malformed datagrams and keep-alive messages
  stale    registers NUMBER times over UDP with the nonce of another exchange and, challenged again, properly
  idle     opens NUMBER TCP connections, sends nothing and holds them for 8 s; prints how many were opened
"""

import contextlib
import hashlib
import os
import re
import resource
import select
import socket
import struct
import sys
import time

ANSWER = re.compile(rb"SIP/2\.0 (\d{3})")
FOREIGN = {"realm": "other", "nonce": "1/0123456789abcdef0123456789abcdef"}


class Phone:
    """A UDP socket and a registration."""

    def __init__(self, address, port, user, password):
        self.address, self.user, self.password = address, user, password
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((address, port))
        self.near = ":".join(map(str, self.socket.getsockname()))
        self.call, self.sequence, self.challenge, self.code = os.urandom(8).hex(), 0, {}, 0
        self.next, self.pause, self.message = 0.0, 0.5, b""

    def request(self, method, challenge=None):
        """A request; with a challenge it carries credentials."""
        self.sequence += 1
        uri = f"sip:{self.address}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.near};branch=z9hG4bK{self.call}{self.sequence};rport",
            "Max-Forwards: 70",
            f"From: <sip:{self.user}@{self.address}>;tag={self.call}",
            f"To: <sip:{self.user}@{self.address}>",
            f"Call-ID: {self.call}",
            f"CSeq: {self.sequence} {method}",
            f"Contact: <sip:{self.user}@{self.near}>",
            "Event: dialog",
            "Expires: 60",
        ]
        if challenge:
            realm, nonce = challenge["realm"], challenge["nonce"]
            hashes = [
                hashlib.md5(part.encode()).hexdigest()
                for part in (f"{self.user}:{realm}:{self.password}", f"{method}:{uri}")
            ]
            end = f"00000001:{self.call}:auth"
            answer = hashlib.md5(f"{hashes[0]}:{nonce}:{end}:{hashes[1]}".encode()).hexdigest()
            opaque = f', opaque="{challenge["opaque"]}"' if "opaque" in challenge else ""
            lines.append(
                f'Authorization: Digest username="{self.user}", realm="{realm}", nonce="{nonce}", uri="{uri}", '
                f'response="{answer}", algorithm=MD5, qop=auth, nc=00000001, cnonce="{self.call}"{opaque}'
            )
        return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()

    def send(self, method="REGISTER", challenge=None):
        """Send a request and remember it for repetitions."""
        self.message = self.request(method, challenge)
        self.next, self.pause = time.monotonic(), 0.5
        self.repeat()

    def repeat(self):
        """Send the request again and choose the time of the next repetition, as RFC 3261 has it."""
        self.next, self.pause = self.next + self.pause, min(2 * self.pause, 4)
        with contextlib.suppress(OSError):
            self.socket.send(self.message)

    def receive(self):
        """Read an answer: note its code and challenge."""
        try:
            text = self.socket.recv(4096)
        except OSError:
            return
        found = ANSWER.match(text)
        if not found or int(found[1]) < 200 or b"CSeq: %d " % self.sequence not in text:
            return
        self.code = int(found[1])
        if self.code == 401:
            header = text.decode("latin-1").split("WWW-Authenticate:")[1].split("\r\n")[0]
            self.challenge = dict(re.findall(r'(\w+)="?([^",]+)', header))


def answered(phones, seconds, done):
    """Run phones with repetitions until `done` for each; returns those that are not."""
    end, waiting = time.monotonic() + seconds, list(phones)
    while waiting and time.monotonic() < end:
        for phone in waiting:
            if time.monotonic() >= phone.next:
                phone.repeat()
        for ready in select.select([phone.socket for phone in waiting], [], [], 0.05)[0]:
            next(phone for phone in waiting if phone.socket is ready).receive()
        waiting = [phone for phone in waiting if not done(phone)]
    return waiting


def office(number, *account):
    """Register phones at once; answers a first challenge only."""
    begun, phones = time.monotonic(), [Phone(*account) for _ in range(number)]
    for phone in phones:
        phone.send()

    def done(phone):
        if phone.code == 401 and phone.sequence == 1:
            phone.code = 0
            phone.send(challenge=phone.challenge)
        return phone.code != 0

    late = answered(phones, 40, done)
    codes = sorted({phone.code for phone in phones} - {200})
    print(round(time.monotonic() - begun, 1), len(phones) - len(late), *codes)


def attack(seconds, *account):
    """Send wrong passwords with a nonce that is used again and again, by turns from one port and from a new one."""
    steady = Phone(*account)
    steady.send()
    answered([steady], 5, lambda phone: phone.code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fresh = Phone(*account)
        for phone in (steady, fresh):
            phone.password = os.urandom(4).hex()
            phone.send(challenge=steady.challenge or FOREIGN)
        fresh.socket.close()
        if select.select([steady.socket], [], [], 0.005)[0]:
            steady.receive()


def foreign(*account):
    """A challenge with the realm of this exchange, which it tells everybody, and the nonce of another one."""
    asked = Phone(*account)
    asked.send()
    answered([asked], 3, lambda phone: phone.code)
    return {**FOREIGN, "realm": asked.challenge.get("realm", "")}


def forge(source, number, address, port, user, password):
    """Send registrations from another's address, in a second."""
    challenge = foreign(address, port, user, password)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for _ in range(number):
        data = Phone(address, port, user, password).request("REGISTER", challenge)
        datagram = struct.pack("!HHHH", 5060, port, 8 + len(data), 0) + data
        ends = socket.inet_aton(source) + socket.inet_aton(address)
        raw.sendto(struct.pack("!BBHHHBBH", 69, 0, 20 + len(datagram), 0, 0, 64, 17, 0) + ends + datagram, (address, 0))
        time.sleep(1 / number)


def ask(method, number, address, port, _user, password):
    """Send requests without a login, as a monitor or a provider does, and print the codes of the answers."""
    for _ in range(number):
        phone = Phone(address, port, "monitor", password)
        phone.send(method)
        answered([phone], 3, lambda phone: phone.code)
        print(phone.code or "-")


def garbage(number, *account):
    """Send what is no SIP request, or a broken one."""
    phone = Phone(*account)
    whole = phone.request("REGISTER")
    for _ in range(number):
        for data in (b"\r\n\r\n", b"\0", b"\r\n", whole[: len(whole) // 2], whole.replace(b"CSeq", b"XSeq")):
            phone.socket.send(data)


def stale(number, *account):
    """Register with an old nonce first, as a phone does after a restart of the exchange."""
    for _ in range(number):
        phone = Phone(*account)
        phone.send(challenge=foreign(*account))
        answered([phone], 3, lambda one: one.code)
        phone.code = 0
        phone.send(challenge=phone.challenge)
        answered([phone], 3, lambda one: one.code)
        print(phone.code or "-")


def idle(number, address, port, _user, _password):
    """Hold connections that send nothing."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    held = [socket.socket() for _ in range(number)]
    for one in held:
        one.setblocking(False)
        one.connect_ex((address, port))
        time.sleep(0.001)
    time.sleep(2)
    print(sum(one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and opened(one) for one in held), flush=True)
    time.sleep(8)


def opened(one):
    """Whether a connection has its other end."""
    try:
        one.getpeername()
    except OSError:
        return False
    return True


def main(address, port, user, password, what, number):
    """Run one of them."""
    what, _, source = what.partition(":")
    account = address, int(port), user, password
    if what == "forge":
        forge(source, int(number), *account)
    elif what in ("options", "subscribe", "invite"):
        ask(what.upper(), int(number), *account)
    else:
        {"office": office, "attack": attack, "garbage": garbage, "stale": stale, "idle": idle}[what](
            int(number), *account
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
