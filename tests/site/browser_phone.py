"""The browser phone of the events page in Chromium, whose microphone hears a tone of 440 Hz."""

from __future__ import annotations

import math
import struct
import sys
import time
import wave
from collections.abc import Sequence
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Playwright, expect

sys.path.append(str(Path(__file__).resolve().parents[2] / "apir_py/tests"))
from browser import launch  # noqa: E402  it is there

TONE = 440
SECONDS = 10  # limit for a step of a call
# What a test cannot read from the page: the connections for sound, and whether a ring or a tone is played.
WATCH = """
window.connections = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...options) { super(...options); window.connections.push(this); }
};
const { start } = AudioBufferSourceNode.prototype;
AudioBufferSourceNode.prototype.start = function (...options) {
  window.sounding = this;
  this.addEventListener("ended", () => { if (window.sounding === this) window.sounding = null; });
  return start.apply(this, options);
};
"""
HEARD = """async () => {
  let [packets, energy] = [0, 0];
  for (const connection of connections)
    for (const report of (await connection.getStats()).values())
      if (report.type === "inbound-rtp") { packets += report.packetsReceived; energy += report.totalAudioEnergy; }
  return [packets, energy];
}"""


def chromium(playwright: Playwright, directory: Path) -> Browser:
    """A Chromium without windows, whose microphone plays the tone."""
    tone = directory / "tone.wav"
    with wave.open(str(tone), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        steps = range(48000)
        file.writeframes(
            b"".join(struct.pack("<h", int(9000 * math.sin(i * 2 * math.pi * TONE / 48000))) for i in steps)
        )
    return launch(
        playwright,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={tone}",
        "--autoplay-policy=no-user-gesture-required",
    )


def logged_in(browser: Browser, events: dict) -> BrowserContext:
    """A context of the browser in which the page's user is logged in."""
    context = browser.new_context(base_url=events["url"], ignore_https_errors=True, locale="es")
    login = context.request.post("/login", data={"user": events["user"], "password": events["password"]})
    assert login.ok, login.text()
    return context


class BrowserPhone:
    """The page of the phone, in a tab of its own; `script` runs before the page's own scripts."""

    def __init__(self, context: BrowserContext, script: str = ""):
        self.page = context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.sent: list[str] = []  # over WebSockets: SIP
        self.page.on("websocket", lambda socket: socket.on("framesent", lambda text: self.sent.append(str(text))))
        self.page.add_init_script(WATCH + script)
        self.page.goto("/#/phone")
        self.view = self.page.locator("section.phone")
        self.view.wait_for()

    def log_in(self, number: str, password: str) -> None:
        """Fill in number and password, and connect."""
        self.view.get_by_label("Número", exact=True).fill(number)
        self.view.get_by_label("Contraseña", exact=True).fill(password)
        self.button("Conectar").click()

    def registered(self, seconds: float = SECONDS) -> None:
        """Wait until it is registered."""
        expect(self.view).to_have_attribute("data-status", "registered", timeout=seconds * 1000)

    def dial(self, number: str) -> None:
        """Type a number and call it."""
        self.view.get_by_label("Número al que llamar").fill(number)
        self.page.keyboard.press("Enter")

    def call(self, number: str):
        """The card of the call with a number."""
        return self.view.get_by_role("article", name=number)

    def talking(self, number: str, seconds: float = SECONDS) -> None:
        """Wait until the call with a number is answered."""
        expect(self.call(number)).to_have_attribute("data-state", "talking", timeout=seconds * 1000)

    def idle(self, seconds: float = SECONDS) -> None:
        """Wait until there is no call."""
        expect(self.view.locator("article")).to_have_count(0, timeout=seconds * 1000)

    def close(self) -> None:
        """Close the page, as a user does."""
        if not self.page.is_closed():
            with self.page.expect_event("close"):
                self.page.close(run_before_unload=True)

    def button(self, name: str):
        """A button by its name."""
        return self.view.get_by_role("button", name=name, exact=True)

    def says(self, text: str, seconds: float = SECONDS) -> None:
        """Wait until it says something, to those who see and to those who hear."""
        expect(self.view.locator(".phone-said").filter(has_text=text)).to_be_visible(timeout=seconds * 1000)

    def heard(self, seconds: float = 1) -> tuple[int, float]:
        """The RTP packets that arrive in the next seconds, and their energy (a share of the loudest, times seconds)."""
        packets, energy = self.page.evaluate(HEARD)
        self.page.wait_for_timeout(seconds * 1000)
        later, more = self.page.evaluate(HEARD)
        return later - packets, more - energy

    def barriers(self) -> list[str]:
        """What axe-core finds in its view that is serious or critical for users with a disability."""
        found = Axe().run(self.page, context=".phone").response["violations"]
        return [
            f"{rule['id']}: {rule['nodes'][0]['html']}" for rule in found if rule["impact"] in ("serious", "critical")
        ]

    def sounding(self) -> bool:
        """Whether it rings, or plays the tone of a call that rings elsewhere."""
        return self.page.evaluate("Boolean(window.sounding)")


def tone_share(samples: Sequence[int], rate: int, frequency: float = TONE) -> float:
    """The share of a tone in the energy of samples (Goertzel): near 1 for the tone alone, 0 for silence."""
    energy = sum(sample * sample for sample in samples)
    # Silence in PCMU is not quite 0.
    if energy < 100 * 100 * max(1, len(samples)):
        return 0.0
    angle = 2 * math.pi * frequency / rate
    real = sum(sample * math.cos(angle * i) for i, sample in enumerate(samples))
    imaginary = sum(sample * math.sin(angle * i) for i, sample in enumerate(samples))
    return 2 * (real * real + imaginary * imaginary) / (len(samples) * energy)


def linear(pcmu: bytes) -> list[int]:
    """Samples of 16 bits from PCMU (ITU-T G.711)."""
    samples = []
    for value in pcmu:
        value = ~value & 0xFF
        size = ((value & 0x0F) << 3) + 0x84 << (value >> 4 & 7)
        samples.append(0x84 - size if value & 0x80 else size - 0x84)
    return samples


def hears_tone(hearing, seconds: float = 5, wanted: bool = True) -> float:
    """Wait until the last half second of `hearing()`, samples at 8 kHz, is the tone, or is not; returns its share."""
    deadline = time.monotonic() + seconds
    while True:
        share = tone_share(hearing()[-4000:], 8000)
        if (share > 0.9 if wanted else share < 0.1) or time.monotonic() > deadline:
            return share
        time.sleep(0.1)
