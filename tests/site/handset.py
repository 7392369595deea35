"""A telephone of one call that also transfers, forwards by itself (302) and refuses, without sound."""

from __future__ import annotations

import contextlib
import time
from urllib.parse import quote

from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone, wait

SECONDS = 8  # for each step


class Handset(Phone):
    """Phone `number` of the lab. `on_call` is what it does with a call: ring, answer, 486, 603, or a number (302)."""

    def __init__(self, lab: dict, number: str, on_call: str = "answer"):
        super().__init__(
            number, (number, lab["phones"][number]["password"]), Connection("udp", (lab["host"], lab["sip"]["udp"]))
        )
        self.on_call, self.called = on_call, 0

    def close(self) -> None:
        """Unregister, and close its sockets."""
        with contextlib.suppress(OSError):
            asked = self.register(0)
            wait([self], lambda: asked.final, 2)
        self.stream.socket.close()
        self.connection.close()

    def transfer(self, number: str, other: Phone | None = None):
        """Send REFER: the peer calls a number, or takes the place of this phone in its other call."""
        target = f"sip:{number}@{self.server}"
        if other:
            call = other.call
            tags = [party.rpartition("tag=")[2] for party in (call.remote, call.local)]
            target += "?Replaces=" + quote(f"{call.call_id};to-tag={tags[0]};from-tag={tags[1]}", safe="")
        headers = [*self.call.headers(), *self.contact, ("Refer-To", f"<{target}>"), ("Referred-By", self.me)]
        return self._request("REFER", self.call.target, headers)

    def _requested(self, message):
        new = message.method == "INVITE" and self.call is None
        if message.method == "INVITE" and self.call and self.call.call_id == message.get("Call-ID"):
            self._respond(message, "200 OK", self.contact, self.offer)  # hold, or another peer
            return
        super()._requested(message)
        if not new:
            return
        self.called += 1
        if self.on_call == "answer":
            self.answer()
        elif self.on_call.startswith(("4", "6")) and len(self.on_call) == 3:
            self._respond(message, f"{self.on_call} Refused")
            self.call = None
        elif self.on_call != "ring":
            self._respond(message, "302 Moved Temporarily", [("Contact", f"<sip:{self.on_call}@{self.server}>")])
            self.call = None


class Desk:
    """Several handsets, driven together."""

    def __init__(self, lab: dict):
        self.lab, self.phones = lab, []

    def phone(self, number: str, on_call: str = "answer", registered: bool = True) -> Handset:
        """A handset more."""
        made = Handset(self.lab, number, on_call)
        self.phones.append(made)
        if registered:
            asked = made.register()
            assert self.until(lambda: asked.final) and asked.final.status == 200, asked.final
        return made

    def until(self, done, seconds: float = SECONDS) -> bool:
        """Drive all until it is done."""
        return wait(self.phones, done, seconds)

    def talk(self, seconds: float) -> None:
        """Let time pass in the calls."""
        wait(self.phones, lambda: False, seconds)

    def dial(self, phone: Handset, number: str, status: int = 200) -> None:
        """Have a handset dial, and wait for the final answer."""
        asked = phone.dial(number)
        assert self.until(lambda: asked.final, 20) and asked.final.status == status, asked.final and asked.final.reason

    def hang_up(self, phone: Handset) -> None:
        """End a handset's call."""
        asked = phone.hang_up()
        assert self.until(lambda: asked.final)
        phone.call = None

    def close(self) -> None:
        """End everything."""
        for phone in self.phones:
            if phone.call and not phone.call.ended:
                with contextlib.suppress(Exception):
                    phone.hang_up()
        self.talk(0.2)
        for phone in self.phones:
            phone.close()
        time.sleep(0.1)
