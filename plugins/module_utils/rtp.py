# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""One PCMU stream over RTP (RFC 3550) whose every frame says who sent it. Runs on Python 3.6 and later.

The samples are not sound but a random mark and the frame's number, repeated: the far end can tell
the other phone's audio from an echo of its own, and a doubled frame from two frames. An exchange
that transcodes would spoil the marks; between two PCMU phones there is nothing to transcode.
"""

import secrets
import socket
import struct
import time

FRAME_SECONDS = 0.02
FRAME_SAMPLES = 160
MARK = struct.Struct("!12sI")
HEADER = struct.Struct("!BBHII")


class Stream:
    """A party of sip_phone.wait(): sends a frame every 20 ms once started, and counts what arrives.

    host: the local IPv4 address to send from and to receive at; the port is chosen by the system.
    """

    def __init__(self, host):
        self.socket = _even_port(host)
        self.port = self.socket.getsockname()[1]
        self.mark = secrets.token_bytes(12)
        self.source = secrets.randbits(32)
        self.expected = None
        self.remote = None
        self.started = None
        self.frames = 0
        self.sent = 0
        self.received = set()
        self.echoes = 0
        self.strangers = 0

    def start(self, remote, frames, expected):
        """Begin to send so many frames to remote (host, port); expected is the mark of the other phone's stream."""
        self.remote, self.frames, self.expected = remote, frames, expected
        self.started = time.monotonic()

    @property
    def due(self):
        """When act() wants to be called next (monotonic seconds), or None."""
        if self.started is None or self.sent >= self.frames:
            return None
        return self.started + self.sent * FRAME_SECONDS

    def act(self, now):
        """Send every frame that is due at now (monotonic seconds)."""
        while self.due is not None and self.due <= now:
            first = 0x80 if self.sent == 0 else 0  # the marker bit: a talkspurt begins
            head = HEADER.pack(0x80, first, self.sent + 1, self.sent * FRAME_SAMPLES, self.source)
            self.socket.sendto(head + MARK.pack(self.mark, self.sent) * (FRAME_SAMPLES // MARK.size), self.remote)
            self.sent += 1

    def receive(self):
        """Take one datagram and count it by whose it is."""
        try:
            data = self.socket.recv(2048)
        except ConnectionError:  # an ICMP answer to an earlier frame; the missing frames will show it
            return
        if len(data) < HEADER.size + MARK.size or data[1] & 0x7F:
            self.strangers += 1
            return
        mark, number = MARK.unpack_from(data, HEADER.size)
        if mark == self.expected:
            self.received.add(number)
        elif mark == self.mark:
            self.echoes += 1
        else:
            self.strangers += 1

    def close(self):
        """Give the port back."""
        self.socket.close()


def _even_port(host):
    """A UDP socket bound to an even port, as RTP wants (RFC 3550, section 11)."""
    refused = []
    try:
        while True:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((host, 0))
            if sock.getsockname()[1] % 2 == 0:
                return sock
            refused.append(sock)
    finally:
        for sock in refused:
            sock.close()
