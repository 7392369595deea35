"""TLS for SIPp, which Debian builds without it: SIPp connects over TCP to a relay on this machine."""

from __future__ import annotations

import re
import select
import socket
import ssl
import threading

from sipp import within

SECONDS = 5  # limit for a SIPp that is called to listen


class Relay:
    """One TLS connection to an exchange, as a phone keeps it, for one SIPp process after another.

    host, port: the exchange; certificate: the only trusted one, in PEM. A SIPp that calls connects to `address`; one
    that is called listens on `called`, a TCP port of the local address `here`; the relay waits until it does, since a
    message over TCP is not repeated.
    """

    def __init__(self, host: str, port: int, certificate: str, here: str):
        trust = ssl.create_default_context(cadata=certificate)  # the certificate must name the host
        self.exchange = trust.wrap_socket(socket.create_connection((host, port), timeout=5), server_hostname=host)
        self.exchange.settimeout(0.2)
        self.here, self.called = here, 0
        self.listener = socket.create_server((here, 0))
        self.address = self.listener.getsockname()
        self._sipp: socket.socket | None = None
        self._unread = b""
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the connection."""
        self._closed = True
        self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            ends = [self.listener, self.exchange, *([self._sipp] if self._sipp else [])]
            for end in select.select(ends, [], [], 0.05)[0]:
                if end is self.listener:
                    self._switch_to(self.listener.accept()[0])
                elif end is self.exchange:
                    if not self._from_exchange():
                        self._closed = True
                elif end is self._sipp:
                    self._from_sipp()
        for end in (self.exchange, self.listener, self._sipp):
            if end:
                end.close()

    def _switch_to(self, sipp: socket.socket | None) -> None:
        if self._sipp:
            self._sipp.close()
        self._sipp = sipp

    def _from_exchange(self) -> bool:
        """Pass on what was received; returns whether the connection is still open."""
        try:
            data = self.exchange.recv(65536)
        except TimeoutError:
            return True  # Only TLS records, such as the session tickets of TLS 1.3.
        while self.exchange.pending():
            data += self.exchange.recv(65536)
        self._unread += data
        # One message at a time; empty lines between messages keep the connection alive.
        while b"\r\n\r\n" in (unread := self._unread.lstrip(b"\r\n")):
            head = unread.partition(b"\r\n\r\n")[0]
            end = len(head) + 4 + int(re.search(rb"^Content-Length: *(\d+)", head, re.MULTILINE)[1])
            if len(unread) < end:
                break
            self._unread = unread[end:]
            self._pass_on(unread[:end])
        return bool(data)

    def _pass_on(self, message: bytes) -> None:
        if re.match(rb"(OPTIONS|NOTIFY) ", message):
            # A phone answers qualify requests and message indications; a SIPp that is about to end would not.
            kept = re.findall(rb"^(?:Via|From|To|Call-ID|CSeq): .*\r\n", message, re.MULTILINE)
            self.exchange.sendall(b"SIP/2.0 200 OK\r\n" + b"".join(kept) + b"Content-Length: 0\r\n\r\n")
            return
        try:
            if self._sipp or within(SECONDS, self._call):
                self._sipp.sendall(message)
        except OSError:
            self._switch_to(None)

    def _call(self) -> bool:
        """Connect to the SIPp that is called; returns whether it listens."""
        try:
            self._switch_to(socket.create_connection((self.here, self.called), timeout=1))
        except ConnectionRefusedError:
            return False
        return True

    def _from_sipp(self) -> None:
        try:
            data = self._sipp.recv(65536)
        except OSError:
            data = b""
        if data:
            self.exchange.sendall(data)
        else:
            self._switch_to(None)
