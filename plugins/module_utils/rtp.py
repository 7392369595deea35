# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""One PCMU stream over RTP (RFC 3550) whose every frame says who sent it. Runs on Python 3.6 and later.

The samples are no audio but a random mark and the frame's number, repeated: the far end can tell the other phone's
frames from an echo of its own, and a doubled frame from two frames. Between two PCMU phones nothing is transcoded.
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
    """A party of sip_phone.wait() at a free port of host: sends a frame every 20 ms, and counts what arrives."""

    def __init__(self, host):
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.port = self.socket.getsockname()[1]
        self.mark = secrets.token_bytes(12)
        self.source = secrets.randbits(32)
        self.expected = None
        self.remote = ("", 0)
        self.started = 0.0  # monotonic
        self.frames = self.sent = 0
        self.received = set()  # numbers of the other phone's frames

    def start(self, remote, frames, expected):
        """Begin to send so many frames to remote (host, port); expected is the mark of the other phone's stream."""
        self.remote, self.frames, self.expected = remote, frames, expected
        self.started = time.monotonic()

    @property
    def due(self):
        """When act() wants to be called next (monotonic seconds), or None."""
        return None if self.sent >= self.frames else self.started + self.sent * FRAME_SECONDS

    def act(self, now):
        """Send every frame that is due at now (monotonic seconds)."""
        while self.due is not None and self.due <= now:
            head = HEADER.pack(0x80, 0, self.sent + 1, self.sent * FRAME_SAMPLES, self.source)
            self.socket.sendto(head + MARK.pack(self.mark, self.sent) * (FRAME_SAMPLES // MARK.size), self.remote)
            self.sent += 1

    def receive(self):
        """Read one datagram; count it if it is a frame of the other phone."""
        try:
            data = self.socket.recv(2048)
        except ConnectionError:  # an ICMP answer to an earlier frame; the missing frames will show it
            return
        if len(data) >= HEADER.size + MARK.size and not data[1] & 0x7F:
            mark, number = MARK.unpack_from(data, HEADER.size)
            if mark == self.expected:
                self.received.add(number)
