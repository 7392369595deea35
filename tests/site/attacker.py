#!/usr/bin/env python3
"""Registers repeatedly over UDP, TCP, TLS or WSS, as a brute-force attack on SIP passwords does.

It needs Python's standard library only, so that it runs on any host:
attacker.py TRANSPORT ADDRESS PORT USER PASSWORD TIMES prints the final code of each attempt, or - for no answer.
"""

import base64
import hashlib
import os
import re
import socket
import ssl
import sys

SECONDS = 2


class Wire:
    """A way to send SIP messages to an exchange and to receive them."""

    def __init__(self, transport, address, port):
        self.transport = transport
        if transport == "udp":
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.settimeout(SECONDS)
            self.socket.connect((address, port))
        else:
            self.socket = socket.create_connection((address, port), timeout=SECONDS)
        if transport in ("tls", "wss"):
            # The lab's certificate is self-signed, and the test is about access.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        if transport == "wss":
            self.socket.sendall(
                (
                    f"GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
                    "Sec-WebSocket-Protocol: sip\r\nSec-WebSocket-Version: 13\r\n\r\n"
                ).encode()
            )
            head = b""
            while b"\r\n\r\n" not in head:
                head += self.receive()
            if not (head.startswith(b"HTTP/1.1 101") and b"sec-websocket-protocol: sip" in head.lower()):
                raise OSError("no WebSocket for SIP")

    def receive(self):
        """The next data; raises OSError when there is none."""
        data = self.socket.recv(8192)
        if not data:
            raise OSError("closed")
        return data

    def send(self, text):
        """Send one message, for WSS in a masked frame of text."""
        data = text.encode()
        if self.transport == "wss":
            mask = os.urandom(4)
            head = (
                bytes([0x81, 0x80 | len(data)])
                if len(data) < 126
                else bytes([0x81, 0xFE]) + len(data).to_bytes(2, "big")
            )
            data = head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
        self.socket.sendall(data)

    def response(self, method):
        """The next final response to a method as (code, text)."""
        received = ""
        while True:
            received += self.receive().decode("latin-1")
            for found in re.finditer(r"SIP/2\.0 (\d{3})(.*?\r\n\r\n)", received, re.DOTALL):
                if int(found[1]) >= 200 and re.search(
                    rf"^CSeq: *\d+ {method}\r$", found[2], re.MULTILINE | re.IGNORECASE
                ):
                    return int(found[1]), found[2]


def attempt(transport, address, port, user, password):
    """One registration with digest authentication over a connection of its own; returns the final response's code."""
    wire = Wire(transport, address, port)
    near = wire.socket.getsockname()[0]
    call = os.urandom(8).hex()

    def register(number, more=""):
        wire.send(
            f"REGISTER sip:{address} SIP/2.0\r\n"
            f"Via: SIP/2.0/{transport.upper()} {near}:{wire.socket.getsockname()[1]}"
            f";branch=z9hG4bK{call}{number};rport\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{user}@{address}>;tag={call}\r\nTo: <sip:{user}@{address}>\r\n"
            f"Call-ID: {call}\r\nCSeq: {number} REGISTER\r\nContact: <sip:{user}@{near}:9;transport={transport}>\r\n"
            f"Expires: 60\r\n{more}Content-Length: 0\r\n\r\n"
        )
        return wire.response("REGISTER")

    code, text = register(1)
    if code != 401:
        return code
    given = dict(re.findall(r'(\w+)="?([^",\r]+)', text[text.lower().index("www-authenticate:") :]))
    digest = [
        hashlib.md5(part.encode()).hexdigest()
        for part in (f"{user}:{given['realm']}:{password}", f"REGISTER:sip:{address}")
    ]
    cnonce = os.urandom(4).hex()
    answer = hashlib.md5(f"{digest[0]}:{given['nonce']}:00000001:{cnonce}:auth:{digest[1]}".encode()).hexdigest()
    opaque = f', opaque="{given["opaque"]}"' if "opaque" in given else ""
    return register(
        2,
        f'Authorization: Digest username="{user}", realm="{given["realm"]}", nonce="{given["nonce"]}", '
        f'uri="sip:{address}", response="{answer}", algorithm=MD5, qop=auth, nc=00000001, '
        f'cnonce="{cnonce}"{opaque}\r\n',
    )[0]


def main(transport, address, port, user, password, times):
    """Print the result of each attempt."""
    for _ in range(int(times)):
        try:
            print(attempt(transport, address, int(port), user, password), flush=True)
        except OSError:
            print("-", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
