"""Phones that call each other through an exchange and, unlike those of verify_exchange, send where its SDP says.

Reads the arguments of place() as JSON from its input, and writes a line of JSON for each call.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))

from ansible_collections.labredes.pbx.plugins.module_utils.rtp import FRAME_SECONDS  # noqa: E402
from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection  # noqa: E402
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone, wait  # noqa: E402

STEP_SECONDS = 10
LEARNING = 25  # frames, the first ones, which do not count: the exchange may drop some while it learns addresses


def announced(message) -> str:
    """The address at which the SDP of a message wants audio."""
    return re.search(r"^c=IN IP[46] (\S+)\r$", message.body, re.MULTILINE)[1]


def place(logins: dict[str, str], ends: list[dict], seconds: float, count: int) -> None:
    """Call from the first of two ends to the second so often; each end has user, transport, server.

    Like a telephone, each keeps its connection from one call to the next.
    """
    lines = [Connection(end["transport"], tuple(end["server"]), STEP_SECONDS) for end in ends]
    for number in range(count):
        phones = [
            Phone(end["user"], (end["user"], logins[end["user"]]), line) for end, line in zip(ends, lines, strict=True)
        ]
        try:
            result = talk(*phones, round(seconds / FRAME_SECONDS))
        except Exception as problem:  # it is counted, and the other calls go on
            result = {"status": None, "problem": f"{type(problem).__name__}: {problem}"}
        print(json.dumps({"number": number, **result}), flush=True)
        for phone in phones:
            phone.stream.socket.close()
    asked = [phone.register(expires=0) for phone in phones]
    wait(phones, lambda: all(item.final for item in asked), STEP_SECONDS)


def talk(caller: Phone, callee: Phone, frames: int) -> dict:
    """Register, call, send audio both ways, hang up.

    Returns the final status, the addresses that the exchange announced, and the frames that were sent and heard.
    """
    phones = [caller, callee]
    for phone in phones:
        asked = phone.register()
        assert wait(phones, lambda asked=asked: asked.final, STEP_SECONDS), "no answer to REGISTER"
        assert asked.final.status == 200, asked.final.start
    asked = caller.dial(callee.user)
    assert wait(phones, lambda: asked.final or callee.incoming, STEP_SECONDS), "no call"
    result = {"status": asked.final and asked.final.status, "sent": frames}
    if asked.final:
        return result
    callee.answer()
    assert wait(phones, lambda: asked.final and callee.call.confirmed, STEP_SECONDS), "no answer to the call"
    result["status"] = asked.final.status
    result["media"] = [announced(asked.final), announced(callee.incoming)]
    result["contacts"] = [phone.call.target for phone in phones]
    for phone, other, where in zip(phones, phones[::-1], result["media"], strict=True):
        phone.stream.start((where, phone.call.audio_port), LEARNING + frames, other.stream.mark)
    streams = [phone.stream for phone in phones]
    last = LEARNING + frames - 1
    wait(phones + streams, lambda: all(last in stream.received for stream in streams), last * FRAME_SECONDS + 1)
    result["heard"] = [sum(number >= LEARNING for number in stream.received) for stream in streams]
    ended = caller.hang_up()
    result["ended"] = wait(phones, lambda: ended.final and callee.call.ended, STEP_SECONDS)
    return result


if __name__ == "__main__":
    place(**json.load(sys.stdin))
