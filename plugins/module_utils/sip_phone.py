# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A telephone for one call on the exchange's own machine: registers, calls, answers, hangs up (RFC 3261).

No threads: a phone and an RTP stream are parties, each with a socket, receive(), due and act(), and wait() drives any
number of them until a condition holds or time is up. Everything is sent over the one connection, whatever Contact or
SDP say: an exchange that announces a public address would otherwise send its test through the router.
Runs on Python 3.6 and later.
"""

import secrets
import select
import time
from typing import Any

from ansible_collections.labredes.pbx.plugins.module_utils import sip_message as sip
from ansible_collections.labredes.pbx.plugins.module_utils.rtp import Stream

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

    def __init__(self, message, resend):
        self.message = message
        self.began = time.monotonic()
        self.due = self.began + RESEND if resend else None
        self.seconds = None  # from the first sending to the final response, challenge included
        self.final = None


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
    """One account at an exchange, at the end of a connection, with the stream of its audio.

    user: the endpoint; login: (user name, password) of the endpoint's auth object.
    """

    def __init__(self, user, login, connection):
        self.user, self.login, self.connection = user, login, connection
        self.socket, self.stream = connection.socket, Stream(connection.host)
        where = f"{connection.host}:{connection.port}"
        parameter = "ws" if connection.transport == "wss" else connection.transport
        self.contact = [("Contact", f"<sip:{user}@{where};transport={parameter}>")]
        self.offer = sip.offer(connection.host, self.stream.port)
        self.via = f"SIP/2.0/{connection.transport.upper()} {where};rport;branch=z9hG4bK"
        self.server = "{}:{}".format(*connection.server)
        self.me = f"<sip:{user}@{connection.server[0]}>"
        self.register_id = secrets.token_hex(8)
        self.cseq, self.requests = 0, {}  # requests by transaction
        self.answers = {}  # transaction of a request of the exchange -> the response it got
        self.call: Any = None  # the Call of the moment
        self.incoming = None  # the INVITE that has no final response yet

    def register(self):
        """Ask for a registration. Returns the request."""
        headers = [("From", self._tagged(self.me)), ("To", self.me), ("Call-ID", self.register_id)]
        headers += [("Expires", "60")] + self.contact
        return self._request("REGISTER", f"sip:{self.server}", headers)

    def dial(self, number):
        """Call an extension. Returns the request; self.call has the state of the call."""
        target = f"sip:{number}@{self.server}"
        self.call = Call(secrets.token_hex(12), self._tagged(self.me), f"<{target}>", target)
        return self._request("INVITE", target, self.call.headers() + self.contact, self.offer)

    def answer(self):
        """Answer the call that is ringing."""
        self._respond(self.incoming, "200 OK", self.contact, self.offer)

    def hang_up(self):
        """End the answered call. Returns the request."""
        return self._request("BYE", self.call.target, self.call.headers())

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
        """Read what has arrived and react; SipError if the connection is broken."""
        for data in self.connection.receive():
            message = sip.Message.parse(data)
            if message.status:
                self._response(message)
            elif message.transaction in self.answers:
                self._send(self.answers[message.transaction])
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
        self._send(item.message)

    def _acknowledge(self, invite, response):
        """ACK a final response to INVITE: within its transaction if it failed, within the dialogue if not."""
        headers = [(name, invite.get(name)) for name in ("Via", "Max-Forwards", "From", "Call-ID")]
        headers += [("To", response.get("To")), ("CSeq", invite.get("CSeq").replace("INVITE", "ACK"))]
        target = invite.start.split(" ")[1]
        if response.status < 300:
            self.call.remote = response.get("To")
            self.call.target = target = sip.address(response.get("Contact")) or self.call.target
            headers[0] = self._via()
        self._send(sip.Message(f"ACK {target} SIP/2.0", headers))

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
        self._send(self.answers[request.transaction])

    def _request(self, method, uri, headers, body=""):
        message = sip.Message(f"{method} {uri} SIP/2.0", self._fresh(method) + headers, body)
        item = self.requests[message.transaction] = Request(message, self.connection.transport == "udp")
        self._send(message)
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

    def _send(self, message):
        self.connection.send(message.to_bytes())
