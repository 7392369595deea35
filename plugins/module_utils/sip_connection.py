# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What carries SIP messages: UDP, TCP, TLS (RFC 3261), or WebSocket over TLS (RFC 7118). For Python 3.6 and later."""

import base64
import contextlib
import re
import secrets
import socket
import ssl
import struct

from ansible_collections.labredes.pbx.plugins.module_utils.sip_message import SipError

LENGTH = re.compile(rb"^(?:Content-Length|l)[ \t]*:[ \t]*(\d+)", re.IGNORECASE | re.MULTILINE)
UPGRADE = "GET /ws HTTP/1.1\r\nHost: {}:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
UPGRADE += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: sip\r\n\r\n"


def split_stream(data):
    """The whole SIP messages at the beginning of what a stream has brought, by their Content-Length, and the rest."""
    messages: list = []
    while True:
        data = data.lstrip(b"\r\n")
        head, gap, body = data.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        size = int(length.group(1)) if length else 0
        if not gap or len(body) < size:
            return messages, data
        messages.append(head + gap + body[:size])
        data = body[size:]


def split_frames(data):
    """The payloads of the whole text and binary frames that a WebSocket server has sent, and the rest."""
    payloads = []
    while len(data) >= 2:
        size, start = data[1] & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            break
        if data[0] & 0x0F in (1, 2) and data[start : start + size].strip():
            payloads.append(data[start : start + size])
        data = data[start + size :]
    return payloads, data


def frame(payload):
    """The WebSocket frame in which a client sends a SIP message, which always has more than 125 bytes."""
    mask = secrets.token_bytes(4)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return struct.pack("!BBH", 0x81, 0xFE, len(payload)) + mask + masked


class Connection:
    """Over udp, tcp, tls or wss to server (IP address, port); certificate: that of the server, in DER."""

    def __init__(self, transport, server, seconds=5):
        self.transport, self.server, self.seconds = transport, server, seconds
        self.certificate, self.rest = None, b""
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        self.socket = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, kind)
        self.socket.settimeout(seconds)
        try:
            self.socket.connect(server)  # UDP too, so that a closed port is noticed at once
            if transport != "udp":
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if transport in ("tls", "wss"):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                # Which certificate is right is for the caller to say.
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                self.socket = context.wrap_socket(self.socket)
                self.certificate = self.socket.getpeercert(binary_form=True)
            if transport == "wss":
                self._upgrade()
        except OSError as problem:
            self.socket.close()
            raise self._broken(problem) from None
        self.host, self.port = self.socket.getsockname()[:2]
        self.socket.settimeout(0)

    def send(self, data):
        """Send one message."""
        try:
            self.socket.sendall(frame(data) if self.transport == "wss" else data)
        except OSError as problem:
            raise self._broken(problem) from None

    def receive(self):
        """The messages that have arrived and are whole, without the empty ones that keep a connection alive."""
        try:
            data = self.socket.recv(65535)
        except (BlockingIOError, ssl.SSLWantReadError):
            return []
        except OSError as problem:
            raise self._broken(problem) from None
        if self.transport == "udp":
            return [data]
        if not data:
            raise self._broken("it ended the connection")
        split = split_frames if self.transport == "wss" else split_stream
        messages, self.rest = split(self.rest + data)
        return messages

    def close(self):
        """End the connection; a WebSocket by its closing frame, without which the exchange logs an error."""
        if self.transport == "wss":
            self.socket.settimeout(self.seconds)
            with contextlib.suppress(OSError):
                self.socket.sendall(b"\x88\x80" + secrets.token_bytes(4))
                while self.socket.recv(4096):
                    pass
        self.socket.close()

    def _upgrade(self):
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.socket.sendall(UPGRADE.format(*self.server, key).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(4096) or b"\r\n\r\n"
        status = answer.partition(b"\r\n")[0].decode("utf-8", "replace")
        if status.split(" ")[1:2] != ["101"]:
            raise OSError(f"/ws answered {status!r}")

    def _broken(self, problem):
        reason = "is closed" if isinstance(problem, ConnectionRefusedError) else f"does not serve SIP ({problem})"
        return SipError("port {1} of {0} {2}".format(*self.server, reason))
