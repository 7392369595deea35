"""The RTP media of a test telephone: PCMU audio and telephone events (RFC 3550, RFC 4733).

The audio sent is a random byte pattern, the mark, repeated. It has only values that a conference or a recording does
not alter, so the other party can count it in what it receives. Received audio is kept in order, to be compared with
prompts.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import struct
import threading
import time
from collections import deque

FRAME_SECONDS = 0.02
FRAME_SAMPLES = 160
EVENT = 101  # payload type that the SIPp scenarios offer for telephone events
KEYS = "0123456789*#"
HEADER = struct.Struct("!BBHII")
# Values that a mixer returns unaltered: without the two loudest of the eight segments of PCMU, since four talkers at
# once would overflow the sum, and without the two zeros, which become one.
QUIET = [value for value in range(256) if value & 0x60 and value not in (0x7F, 0xFF)]


class Media:
    """One RTP socket of this machine, served by a thread until close().

    host: the local IPv4 address; the system chooses the port.
    """

    def __init__(self, host: str):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.port = self.socket.getsockname()[1]
        self.mark = bytes(secrets.choice(QUIET) for _ in range(16))
        self.source = secrets.randbits(32)
        self.remote: tuple[str, int] | None = None
        self.talking = True  # otherwise it sends silence
        self.heard = bytearray()  # received PCMU
        self.keys = ""  # keys that the other party pressed
        self._keyed = None
        self._seen: deque[tuple[int, int]] = deque(maxlen=64)  # to skip duplicates
        self._plan: deque[tuple[int, int, bool]] = deque()  # telephone events to send, one entry a frame
        self._sequence = self._time = self._event_time = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def open(self, host: str, port: int) -> None:
        """Start sending to the exchange."""
        self.remote = (host, port)

    def press(self, keys: str, seconds: float = 0.1, pause: float = 0.1, wait: bool = True) -> None:
        """Press keys one after another, for `seconds` each, `pause` apart; `wait`: return when all are sent."""
        for key in keys:
            for frame in range(round(seconds / FRAME_SECONDS)):
                self._plan.append((KEYS.index(key), frame + 1, False))
            self._plan.append((KEYS.index(key), round(seconds / FRAME_SECONDS), True))
            self._plan.extend([(-1, 0, False)] * round(pause / FRAME_SECONDS))
        while wait and self._plan and not self._closed:
            time.sleep(FRAME_SECONDS)

    def frames_of(self, other: Media, since: int = 0) -> float:
        """The number of frames of another party in the received audio after an offset."""
        return self.heard.count(other.mark, since) * len(self.mark) / FRAME_SAMPLES

    def loud(self, since: int) -> int:
        """The number of samples that are not silence in the received audio after an offset."""
        return sum(value & 0x7F < 0x70 for value in self.heard[since:])

    def close(self) -> None:
        """Stop sending and release the port."""
        self._closed = True
        self._thread.join()
        self.socket.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._closed:
            if select.select([self.socket], [], [], max(0.0, due - time.monotonic()))[0]:
                self._receive()
            if time.monotonic() >= due:
                due += FRAME_SECONDS
                if self.remote:
                    self._send()

    def _send(self) -> None:
        """Send the next frame: a telephone event or audio."""
        self._time += FRAME_SAMPLES
        key, frame, last = self._plan.popleft() if self._plan else (-1, 0, False)
        if key < 0:
            audio = self.mark * (FRAME_SAMPLES // len(self.mark)) if self.talking else b"\xff" * FRAME_SAMPLES
            self._packet(0, self._time, audio, first=self._sequence == 0)
            return
        if frame == 1 and not last:
            self._event_time = self._time
        for _copy in range(3 if last else 1):  # the end of an event is sent three times
            event = struct.pack("!BBH", key, 0x80 * last | 10, frame * FRAME_SAMPLES)
            self._packet(EVENT, self._event_time, event, first=frame == 1 and not last)

    def _packet(self, kind: int, stamp: int, payload: bytes, first: bool) -> None:
        self._sequence = self._sequence + 1 & 0xFFFF
        head = HEADER.pack(0x80, kind | 0x80 * first, self._sequence, stamp & 0xFFFFFFFF, self.source)
        with contextlib.suppress(ConnectionError):  # an ICMP error: the exchange has hung up
            self.socket.sendto(head + payload, self.remote)

    def _receive(self) -> None:
        try:
            data = self.socket.recv(2048)
        except ConnectionError:
            return
        if len(data) <= HEADER.size:
            return
        _version, kind, sequence, stamp, source = HEADER.unpack_from(data)
        if (source, sequence) in self._seen:
            return
        self._seen.append((source, sequence))
        if kind & 0x7F == 0:
            self.heard += data[HEADER.size :]
        elif kind & 0x7F == EVENT and data[HEADER.size + 1] & 0x80 and self._keyed != (source, stamp):
            self._keyed = (source, stamp)
            self.keys += (KEYS + "ABCD")[data[HEADER.size] & 15]
