# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A telephone for one call over UDP on the exchange's own machine: registers, calls, answers, hangs up (RFC 3261).

No threads: a phone and an RTP stream are parties, each with a socket, receive(), due and act(), and wait() drives any
number of them until a condition holds or time is up. Everything is sent to the one address of the exchange, whatever
Contact or SDP say: an exchange that announces a public address would otherwise send its test through the router.
Runs on Python 3.6 and later.
"""

import secrets
import select
import socket
import time
from typing import Any

from ansible_collections.labredes.pbx.plugins.module_utils.rtp import Stream
from ansible_collections.labredes.pbx.plugins.module_utils.sip_message import (
    Message,
    SipError,
    address,
    audio_port,
    challenge,
    credentials,
    offer,
)

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


class Request:
    """A request of ours: when to send it again, and its final response."""

    def __init__(self, message):
        self.message = message
        self.began = time.monotonic()
        self.due = self.began + RESEND
        self.seconds = None  # from the first sending to the final response, challenge included
        self.final = None


class Call:
    """The one dialogue of a phone: its headers, the URI for requests within it, and how far it is."""

    def __init__(self, call_id, local, remote, target):
        self.call_id, self.local, self.remote, self.target = call_id, local, remote, target
        self.audio_port = None  # where the exchange wants our RTP
        self.ringing = self.answered = self.confirmed = self.ended = False

    def headers(self):
        """The headers of a request within the dialogue."""
        return [("From", self.local), ("To", self.remote), ("Call-ID", self.call_id)]


class Phone:
    """One account (user, password) at an exchange (server: IPv4 address, UDP port), with the stream of its audio."""

    def __init__(self, user, password, server):
        self.user, self.password, self.server = user, password, server
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(server)  # so that a closed port is noticed at once
        self.host, self.port = self.socket.getsockname()
        self.stream = Stream(self.host)
        self.contact = [("Contact", f"<sip:{user}@{self.host}:{self.port}>")]
        self.me = f"<sip:{user}@{server[0]}>"
        self.register_id = secrets.token_hex(8)
        self.cseq = 0
        self.requests = {}  # by transaction
        self.answers = {}  # transaction of a request of the exchange -> the response it got
        self.call: Any = None  # the Call of the moment
        self.incoming = None  # the INVITE that has no final response yet

    def register(self, seconds=60):
        """Ask for a registration of so many seconds; 0 ends it. Returns the request."""
        headers = [("From", self._tagged(self.me)), ("To", self.me), ("Call-ID", self.register_id)]
        headers += [("Expires", str(seconds))] + self.contact
        return self._request("REGISTER", f"sip:{self.server[0]}:{self.server[1]}", headers)

    def dial(self, number):
        """Call an extension. Returns the request; self.call has the state of the call."""
        target = f"sip:{number}@{self.server[0]}:{self.server[1]}"
        self.call = Call(secrets.token_hex(12), self._tagged(self.me), f"<{target}>", target)
        return self._request("INVITE", target, self.call.headers() + self.contact, offer(self.host, self.stream.port))

    def answer(self):
        """Answer the call that is ringing."""
        self._respond(self.incoming, "200 OK", self.contact, offer(self.host, self.stream.port))
        self.call.answered = True

    def hang_up(self):
        """End the answered call. Returns the request."""
        return self._request("BYE", self.call.target, self.call.headers())

    def cancel(self, invite):
        """Cancel an INVITE that has no final response. Returns the request."""
        return self._launch(self._of_invite("CANCEL", invite.message, invite.message.get("To")))

    def close(self):
        """Close the ports."""
        self.socket.close()
        self.stream.close()

    @property
    def due(self):
        """When act() wants to be called next (monotonic seconds), or None."""
        return min([item.due for item in self.requests.values() if item.due is not None], default=None)

    def act(self, now):
        """Send again what has had no answer for too long."""
        for item in self.requests.values():
            if item.due is not None and item.due <= now:
                self._send(item.message)
                item.due = now + RESEND

    def receive(self):
        """Read one datagram and react; SipError if the exchange's port is closed."""
        try:
            message = Message.parse(self.socket.recv(65535))
        except ConnectionError:
            raise self._closed() from None
        if message.status:
            self._response(message)
        elif message.transaction in self.answers:
            self._send(self.answers[message.transaction])
        else:
            self._requested(message)

    def _response(self, message):
        item = self.requests.get(message.transaction)
        invite = message.method == "INVITE"
        if item is None:
            return
        if message.status < 200:
            if invite:
                item.due = None
                self.call.ringing = self.call.ringing or message.status in (180, 183)
            return
        if invite:
            self._acknowledge(item.message, message)
        if item.final is not None:
            return
        if message.status in (401, 407) and not item.message.get("Authorization"):
            self._authenticate(item, message)
            return
        item.final, item.seconds, item.due = message, time.monotonic() - item.began, None
        if invite and message.status < 300:
            self.call.answered, self.call.audio_port = True, audio_port(message.body)
        elif message.method in ("INVITE", "BYE"):
            self.call.ended = True

    def _authenticate(self, item, response):
        """Send a refused request once more, with credentials."""
        old = item.message
        asked = challenge(response)
        value = credentials(asked, old.method, old.start.split(" ")[1], self.user, self.password)
        fresh = dict(self._fresh(old.method))
        headers = [(name, fresh.get(name, text)) for name, text in old.headers] + [("Authorization", value)]
        item.message = Message(old.start, headers, old.body)
        del self.requests[old.transaction]
        self.requests[item.message.transaction] = item
        self._send(item.message)

    def _acknowledge(self, invite, response):
        """ACK a final response to INVITE: within its transaction if it failed, within the dialogue if not."""
        ack = self._of_invite("ACK", invite, response.get("To"))
        if response.status < 300:
            self.call.remote = response.get("To")
            self.call.target = address(response.get("Contact")) or self.call.target
            ack.start = f"ACK {self.call.target} SIP/2.0"
            ack.headers[0] = self._via()
        self._send(ack)

    def _of_invite(self, method, invite, to):
        """A request that repeats the headers of an INVITE."""
        headers = [(name, invite.get(name)) for name in ("Via", "Max-Forwards", "From", "Call-ID")]
        number = invite.get("CSeq").partition(" ")[0]
        headers += [("To", to), ("CSeq", f"{number} {method}")]
        return Message(invite.start.replace("INVITE", method, 1), headers)

    def _requested(self, message):
        """React to a request of the exchange."""
        ours = self.call is not None and self.call.call_id == message.get("Call-ID")
        if message.method == "ACK":
            if ours:
                self.call.confirmed = True
        elif message.method == "INVITE" and self.call is not None:
            self._respond(message, "486 Busy Here")
        elif message.method == "INVITE":
            self.incoming = message
            caller, target = message.get("From"), address(message.get("Contact"))
            self.call = Call(message.get("Call-ID"), self._tagged(message.get("To")), caller, target)
            self.call.audio_port, self.call.ringing = audio_port(message.body), True
            self._respond(message, "180 Ringing", self.contact)
        else:  # BYE and CANCEL; OPTIONS, NOTIFY and others need no more than an answer
            self._respond(message, "200 OK")
            if message.method == "CANCEL" and ours and not self.call.answered:
                self._respond(self.incoming, "487 Request Terminated")
            if message.method in ("BYE", "CANCEL") and ours:
                self.call.ended = True

    def _respond(self, request, status, headers=(), body=""):
        copied = [(name, request.get(name)) for name in ("Via", "From", "To", "Call-ID", "CSeq")]
        if self.call is not None and self.call.call_id == request.get("Call-ID"):
            copied[2] = ("To", self.call.local)
        message = Message("SIP/2.0 " + status, copied + list(headers), body)
        self.answers[request.transaction] = message
        self._send(message)

    def _request(self, method, uri, headers, body=""):
        fresh = self._fresh(method)
        return self._launch(Message(f"{method} {uri} SIP/2.0", fresh + headers, body))

    def _launch(self, message):
        item = self.requests[message.transaction] = Request(message)
        self._send(message)
        return item

    def _fresh(self, method):
        """The headers that differ from one request to the next."""
        self.cseq += 1
        return [self._via(), ("CSeq", f"{self.cseq} {method}"), ("Max-Forwards", "70")]

    def _via(self):
        return "Via", f"SIP/2.0/UDP {self.host}:{self.port};rport;branch=z9hG4bK{secrets.token_hex(8)}"

    @staticmethod
    def _tagged(party):
        return f"{party};tag={secrets.token_hex(4)}"

    def _send(self, message):
        try:
            self.socket.send(message.to_bytes())
        except ConnectionError:
            raise self._closed() from None

    def _closed(self):
        return SipError(f"UDP port {self.server[1]} of {self.server[0]} is closed")
