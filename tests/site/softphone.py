"""A softphone by baresip, an independent SIP implementation with TLS, SRTP and several codecs.

It sends a tone and answers every call. It needs no sound card and no privileges, and ends with its stack.
"""

from __future__ import annotations

import array
import math
import re
import struct
import subprocess
import tempfile
import wave
from contextlib import ExitStack
from pathlib import Path

from outside_host import within_network
from sipp import Account, local_address, within

RATES = {"PCMU": 8000, "PCMA": 8000, "G722/16000": 16000}  # samples a second
CONFIG = """
sip_verify_server no
sip_listen {address}:0
audio_source aufile,{directory}/tone.wav
audio_player aufile,{directory}/played.wav
audio_alert aufile,{directory}/played.wav
ausrc_srate {rate}
auplay_srate {rate}
module_path /usr/lib/baresip/modules
module aufile.so
module g711.so
module g722.so
module menu.so
module sndfile.so
module srtp.so
module account.so
snd_path {directory}
"""


class Softphone:
    """A registered softphone with one codec; dial: a number that it calls. It ends after `seconds`.

    The account's port is that of the transport. encryption: srtp, or srtp-mand, which accepts no call without it.
    namespace: a process whose network it uses, such as that of a container.
    """

    def __init__(
        self,
        stack: ExitStack,
        account: Account,
        transport: str = "udp",
        codec: str = "PCMU",
        encryption: str = "",
        dial: str = "",
        seconds: int = 25,
        namespace: int = 0,
    ):
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.output = self.directory / "output"
        self.rate = rate = RATES[codec]
        # Of several addresses of this machine it would take any, also one that is outside of the local networks.
        address = "0.0.0.0" if namespace else local_address(account.host)
        (self.directory / "config").write_text(CONFIG.format(directory=self.directory, rate=rate, address=address))
        options = (
            f"auth_user={account.number};auth_pass={account.password};audio_codecs={codec};answermode=auto;regint=60"
        )
        options += f";mediaenc={encryption}" if encryption else ""
        line = f"<{uri(account.number, account, transport)}>;{options}\n"
        (self.directory / "accounts").write_text(line)
        (self.directory / "contacts").write_text("")
        with wave.open(str(self.directory / "tone.wav"), "wb") as tone:
            tone.setnchannels(1)
            tone.setsampwidth(2)
            tone.setframerate(rate)
            steps = range(rate * seconds)
            tone.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(i * 880 * math.pi / rate))) for i in steps))
        command = [
            *(within_network(namespace) if namespace else []),
            "baresip",
            "-f",
            self.directory,
            "-t",
            str(seconds),
        ]
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                [*command, *(["-e", f"/dial {uri(dial, account, transport)}"] if dial else [])],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        stack.callback(process.wait)
        stack.callback(process.terminate)

    def says(self, pattern: str, seconds: float = 10) -> bool:
        """Wait until its output matches a pattern."""
        return within(seconds, lambda: re.search(pattern, self.text()))

    def text(self) -> str:
        """Its output so far, without the lines that count its bits a second."""
        return re.sub(r"[^\n]*bit/s[^\n]*", "", self.output.read_text(errors="replace"))

    def registered(self) -> bool:
        """Wait until it is registered."""
        return self.says(r"200 OK .*\[1 binding\]")

    def hears_sound(self, seconds: float = 10) -> bool:
        """Wait until it has received half a second of sound that is not silence."""
        return within(seconds, lambda: self._loud() > 0.5)

    def received(self) -> array.array:
        """The samples that it has received in all calls, at self.rate."""
        samples = array.array("h")
        for path in sorted(self.directory.glob("dump-*-dec.wav")):
            data = path.read_bytes()[44:]
            samples.frombytes(data[: len(data) // 2 * 2])
        return samples

    def _loud(self) -> float:
        """Seconds of sound in what it has received."""
        return sum(abs(sample) > 200 for sample in self.received()) / self.rate


def uri(number: str, account: Account, transport: str) -> str:
    """The URI of a number at the account's exchange."""
    return f"sip:{number}@{account.host}:{account.port};transport={transport}"
