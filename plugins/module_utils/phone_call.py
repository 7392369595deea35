# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""One call between two phones of this machine, with audio both ways. Runs on Python 3.6 and later."""

import time

from ansible_collections.labredes.pbx.plugins.module_utils.rtp import FRAME_SECONDS
from ansible_collections.labredes.pbx.plugins.module_utils.sip_message import SipError
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import wait

ENOUGH = 0.8  # of the frames; the first few may be lost while Asterisk learns the phones' RTP addresses


def place_call(caller, callee, talk, seconds):
    """Register one phone, have the other dial its name, talk, and hang up; returns the figures of the call.

    talk: the length of the call; seconds: the time limit of each other step.
    """
    phones, frames = [caller, callee], max(1, int(round(talk / FRAME_SECONDS)))

    def until(done, failure):
        if not wait(phones, done, seconds):
            raise SipError(f"{failure} within {seconds:g} s")

    def finish(asked, what):
        """Wait for the 2xx that answers a request; returns the milliseconds it took."""
        until(lambda: asked.final, f"the exchange did not answer the {what}")
        if asked.final.status >= 300:
            raise SipError(f"the exchange answered the {what} with {asked.final.reason}")
        return round(asked.seconds * 1000, 1)

    register_ms = finish(callee.register(), "REGISTER")
    asked = caller.dial(callee.user)
    until(lambda: asked.final or (caller.call.ringing and callee.incoming), "the call did not ring at both phones")
    if asked.final is None:
        callee.answer()
    setup_ms = finish(asked, "INVITE")
    until(lambda: callee.call and callee.call.confirmed, "the exchange did not connect the called phone")
    began = time.monotonic()
    received = exchange_audio(phones, frames)
    finish(caller.hang_up(), "BYE")
    until(lambda: callee.call.ended, "the exchange did not end the call of the called phone")
    elapsed = time.monotonic() - began
    return {"register_ms": register_ms, "setup_ms": setup_ms, "sent": frames, "received": received, "seconds": elapsed}


def exchange_audio(phones, frames):
    """Send so many frames of RTP both ways; returns how many arrived at the phone that received fewer."""
    streams = [phone.stream for phone in phones]
    for phone, other in (phones, phones[::-1]):
        phone.stream.start((phone.connection.server[0], phone.call.audio_port), frames, other.stream.mark)

    def over():
        return all(frames - 1 in stream.received for stream in streams) or any(phone.call.ended for phone in phones)

    wait(phones + streams, over, frames * FRAME_SECONDS + 0.5)
    if any(phone.call.ended for phone in phones):
        raise SipError("the exchange ended the call early")
    for phone, stream in zip(("caller", "called phone"), streams):
        if len(stream.received) < ENOUGH * frames:
            raise SipError(
                f"the {phone} received {len(stream.received)} of the {frames} RTP frames sent to it, so a firewall may "
                "be between the exchange and itself, or its RTP ports may be taken"
            )
    return min(len(stream.received) for stream in streams)
