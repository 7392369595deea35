# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A telephone for one call on the exchange's own machine (RFC 3261), and a call between two of them.

No threads: a phone and an RTP stream are parties, each with a socket, receive(), due and act(), and wait() drives any
number of them until a condition holds or time is up. Everything is sent over the one connection, whatever Contact or
SDP say: an exchange that announces a public address would send its test through the router. For Python 3.6.
"""

import secrets
import select
import time
from types import SimpleNamespace
from typing import Any

from ansible_collections.labredes.pbx.plugins.module_utils import sip_message as sip
from ansible_collections.labredes.pbx.plugins.module_utils.rtp import FRAME_SECONDS, Stream

ENOUGH = 0.8  # of the RTP frames; the first few may be lost while Asterisk learns the phones' addresses
RESEND = 0.5  # seconds; nothing is lost on the way, but an exchange under load drops requests


def wait(parties, done, seconds):
    """Drive the parties until done() is true; False if that takes longer."""
    deadline = time.monotonic() + seconds
    while not done():
        now = time.monotonic()
        if now >= deadline:
            return False
        due = min([deadline] + [party.due for party in parties if party.due is not None])
        ready = select.select([party.socket for party in parties], [], [], max(0, due - now))[0]
        for party in parties:
            if party.socket in ready:
                party.receive()
            party.act(time.monotonic())
    return True


class Call:
    """The one dialogue of a phone: its headers, the URI for requests within it, and how far it is."""

    def __init__(self, call_id, local, remote, target):
        self.call_id, self.local, self.remote, self.target = call_id, local, remote, target
        self.audio_port = None  # where the exchange wants our RTP
        self.ringing = self.confirmed = self.ended = False

    def headers(self):
        """The headers of a request within the dialogue."""
        return [("From", self.local), ("To", self.remote), ("Call-ID", self.call_id)]


class Phone:
    """The phone of an endpoint (user) with (name, password) of its auth object (login), and the stream of its audio.

    Requests are returned as objects with final, the final response or None, and seconds, the time until then.
    """

    def __init__(self, user, login, connection):
        self.user, self.login, self.connection = user, login, connection
        self.socket, self.stream = connection.socket, Stream(connection.host)
        where = sip.location(connection.host, connection.port)
        parameter = "ws" if connection.transport == "wss" else connection.transport
        self.contact = [("Contact", f"<sip:{user}@{where};transport={parameter}>")]
        self.offer = sip.offer(connection.host, self.stream.port)
        self.via = f"SIP/2.0/{connection.transport.upper()} {where};rport;branch=z9hG4bK"
        self.server = sip.location(*connection.server)
        self.me = f"<sip:{user}@{self.server.rpartition(':')[0]}>"
        self.cseq, self.requests, self.answers = 0, {}, {}  # by transaction: ours, and the responses to the exchange's
        self.call: Any = None  # the Call of the moment
        self.incoming = None  # the INVITE that has no final response yet

    def register(self, expires=60):
        """Ask for a registration of so many seconds; 0 ends it."""
        headers = [("From", self._tagged(self.me)), ("To", self.me), ("Call-ID", secrets.token_hex(8))]
        headers += [("Expires", str(expires))] + self.contact
        return self._request("REGISTER", f"sip:{self.server}", headers)

    def dial(self, number):
        """Call an extension; self.call has the state of the call."""
        target = f"sip:{number}@{self.server}"
        self.call = Call(secrets.token_hex(12), self._tagged(self.me), f"<{target}>", target)
        return self._request("INVITE", target, self.call.headers() + self.contact, self.offer)

    def answer(self):
        """Answer the call that is ringing."""
        self._respond(self.incoming, "200 OK", self.contact, self.offer)

    def hang_up(self):
        """End the answered call."""
        return self._request("BYE", self.call.target, self.call.headers())

    @property
    def due(self):
        """When act() wants to be called next (monotonic seconds), or None."""
        return min([item.due for item in self.requests.values() if item.due is not None], default=None)

    def act(self, now):
        """Send again what has had no answer for too long."""
        for item in self.requests.values():
            if item.due is not None and item.due <= now:
                self.connection.send(item.message.to_bytes())
                item.due = now + RESEND

    def receive(self):
        """Read what has arrived and react; SipError if the connection is broken."""
        for data in self.connection.receive():
            message = sip.Message.parse(data)
            if message.status:
                self._response(message)
            elif message.transaction in self.answers:
                self.connection.send(self.answers[message.transaction].to_bytes())
            else:
                self._requested(message)

    def _response(self, message):
        item, invite = self.requests.get(message.transaction), message.method == "INVITE"
        if item is None or (message.status < 200 and not invite):
            return
        if message.status < 200:
            item.due = None
            self.call.ringing = self.call.ringing or message.status in (180, 183)
            return
        if invite:
            self._acknowledge(item.message, message)
        if message.status in (401, 407) and not item.message.get("Authorization"):
            self._authenticate(item, message)
        elif item.final is None:
            item.final, item.seconds, item.due = message, time.monotonic() - item.began, None
            if invite and message.status < 300:
                self.call.audio_port = sip.audio_port(message.body)
            elif message.method in ("INVITE", "BYE"):
                self.call.ended = True

    def _authenticate(self, item, response):
        """Send a refused request once more, with credentials."""
        old = item.message
        value = sip.credentials(sip.challenge(response), old.method, old.start.split(" ")[1], *self.login)
        fresh = dict(self._fresh(old.method))
        headers = [(name, fresh.get(name, text)) for name, text in old.headers] + [("Authorization", value)]
        item.message = sip.Message(old.start, headers, old.body)
        del self.requests[old.transaction]
        self.requests[item.message.transaction] = item
        self.connection.send(item.message.to_bytes())

    def _acknowledge(self, invite, response):
        """ACK a final response to INVITE: within its transaction if it failed, within the dialogue if not."""
        headers = [(name, invite.get(name)) for name in ("Via", "Max-Forwards", "From", "Call-ID")]
        headers += [("To", response.get("To")), ("CSeq", invite.get("CSeq").replace("INVITE", "ACK"))]
        target = invite.start.split(" ")[1]
        if response.status < 300:
            self.call.remote = response.get("To")
            self.call.target = target = sip.address(response.get("Contact")) or self.call.target
            headers[0] = self._via()
        self.connection.send(sip.Message(f"ACK {target} SIP/2.0", headers).to_bytes())

    def _requested(self, message):
        """React to a request of the exchange."""
        ours = self.call is not None and self.call.call_id == message.get("Call-ID")
        if message.method == "ACK":
            if ours:
                self.call.confirmed = True
        elif message.method == "INVITE" and self.call is not None:
            self._respond(message, "486 Busy Here")
        elif message.method == "INVITE":
            local = self._tagged(message.get("To"))
            self.call = Call(message.get("Call-ID"), local, message.get("From"), sip.address(message.get("Contact")))
            self.incoming, self.call.audio_port = message, sip.audio_port(message.body)
            self._respond(message, "180 Ringing", self.contact)
        else:  # OPTIONS, NOTIFY and others need no more than an answer
            self._respond(message, "200 OK")
            if message.method == "BYE" and ours:
                self.call.ended = True

    def _respond(self, request, status, headers=(), body=""):
        copied = [(name, request.get(name)) for name in ("Via", "From", "To", "Call-ID", "CSeq")]
        if self.call is not None and self.call.call_id == request.get("Call-ID"):
            copied[2] = ("To", self.call.local)
        self.answers[request.transaction] = sip.Message("SIP/2.0 " + status, copied + list(headers), body)
        self.connection.send(self.answers[request.transaction].to_bytes())

    def _request(self, method, uri, headers, body=""):
        message = sip.Message(f"{method} {uri} SIP/2.0", self._fresh(method) + headers, body)
        now = time.monotonic()
        item = SimpleNamespace(message=message, began=now, due=None, seconds=None, final=None)
        item.due = now + RESEND if self.connection.transport == "udp" else None
        self.requests[message.transaction] = item
        self.connection.send(message.to_bytes())
        return item

    def _fresh(self, method):
        """The headers that differ from one request to the next."""
        self.cseq += 1
        return [self._via(), ("CSeq", f"{self.cseq} {method}"), ("Max-Forwards", "70")]

    def _via(self):
        return "Via", self.via + secrets.token_hex(8)

    @staticmethod
    def _tagged(party):
        return f"{party};tag={secrets.token_hex(4)}"


def place_call(phones, talk, seconds):
    """Have the first phone call the second for talk seconds; returns figures. Each other step may take some seconds."""
    (caller, callee), frames = phones, max(1, int(round(talk / FRAME_SECONDS)))

    def until(done, failure):
        if not wait(phones, done, seconds):
            raise sip.SipError(f"{failure} within {seconds:g} s")

    def finish(asked, what):
        """Wait for the 2xx that answers a request; returns the milliseconds it took."""
        until(lambda: asked.final, f"the exchange did not answer the {what}")
        if asked.final.status >= 300:
            raise sip.SipError(f"the exchange answered the {what} with {asked.final.reason}")
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
        raise sip.SipError("the exchange ended the call early")
    for phone, stream in zip(("caller", "called phone"), streams):
        if len(stream.received) < ENOUGH * frames:
            raise sip.SipError(
                f"the {phone} received {len(stream.received)} of the {frames} RTP frames sent to it, so a firewall may "
                "be between the exchange and itself, or its RTP ports may be taken"
            )
    return min(len(stream.received) for stream in streams)
