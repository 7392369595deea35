"""Recognise the exchange's prompts in the audio that a caller received.

The exchange plays a prompt's wav file as PCMU without altering it, so the audio contains the bytes of the file. A few
loud pieces of each file, searched in the audio, show which prompt was played and whether it was complete.
"""

from __future__ import annotations

import io
import tarfile
import wave
from array import array
from dataclasses import dataclass

PIECE = 160  # samples
PIECES = 5


@dataclass(frozen=True)
class Prompt:
    """A prompt: its length in samples, and some of its loud pieces as (offset, PCMU bytes)."""

    name: str
    samples: int
    pieces: tuple[tuple[int, bytes], ...]

    def find(self, audio: bytes, since: int = 0) -> int:
        """The offset in audio where the prompt starts, found by one of its first two pieces after `since`, or -1."""
        found = [(audio.find(piece, since), offset) for offset, piece in self.pieces[:2]]
        return min((max(0, place - offset) for place, offset in found if place >= 0), default=-1)

    def whole(self, audio: bytes, since: int = 0) -> bool:
        """Whether all pieces but one are in audio, in order and as far apart as in the file, within two frames."""
        kept = 0
        for place, (offset, piece) in enumerate(self.pieces):
            start = audio.find(piece, since)
            others = (
                [
                    audio.find(other, max(0, start + far - offset - 400), start + far - offset + 400 + PIECE)
                    for far, other in self.pieces[place + 1 :]
                ]
                if start >= 0
                else []
            )
            kept = max(kept, (start >= 0) + sum(found >= 0 for found in others))
        return kept >= len(self.pieces) - 1


class Prompts(dict):
    """Prompts by name, such as vm-sorry or digits/6."""

    @classmethod
    def of(cls, archive: bytes) -> Prompts:
        """Read a tar archive of wav files (8 kHz, 16 bit, mono)."""
        prompts = cls()
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            for member in files:
                if member.isfile() and member.name.endswith(".wav"):
                    name = member.name.removeprefix("./").removesuffix(".wav")
                    prompt = _prompt(name, files.extractfile(member).read())
                    if prompt.pieces:
                        prompts[name] = prompt
        return prompts

    def heard(self, audio: bytes) -> list[str]:
        """The names of all prompts heard, in order; both names of a recording that has two."""
        found = []
        for name, prompt in self.items():
            place = prompt.find(audio)
            while place >= 0:
                found.append((place, name))
                place = prompt.find(audio, place + prompt.samples)
        return [name for _place, name in sorted(found)]


def _prompt(name: str, content: bytes) -> Prompt:
    with wave.open(io.BytesIO(content)) as recording:
        samples = array("h", recording.readframes(recording.getnframes()))
    count = max(1, min(PIECES, len(samples) // (2 * PIECE)))
    span = len(samples) // count
    pieces = []
    for part in range(count):  # the loudest piece of each part
        starts = range(part * span, (part + 1) * span - PIECE, PIECE // 2)
        loudest = max(starts, key=lambda start: max(samples[start : start + PIECE]), default=None)
        if loudest is not None and max(samples[loudest : loudest + PIECE]) > 300:
            pieces.append((loudest, bytes(ULAW[value] for value in samples[loudest : loudest + PIECE])))
    return Prompt(name, len(samples), tuple(pieces))


def _ulaw(sample: int) -> int:
    """PCMU of a 16-bit sample as in the exchange's table, which has one entry for four samples."""
    sample |= 3
    sign = 0x80 if sample < 0 else 0
    size = min(abs(sample), 32635) + 0x84
    exponent = max(0, size.bit_length() - 8)
    code = ~(sign | exponent << 4 | size >> exponent + 3 & 15) & 0xFF
    return code or 2


ULAW = [_ulaw(sample) for sample in range(32768)] + [_ulaw(sample) for sample in range(-32768, 0)]  # -1 is the last
