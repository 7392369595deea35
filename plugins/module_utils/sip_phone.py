# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A telephone for one call at a time over UDP: registers, calls, answers, hangs up (RFC 3261).

No threads: a phone and an RTP stream are parties, each with a socket, receive(), due and act(),
and wait() drives any number of them until a condition holds or time is up. Everything goes to the
one address of the exchange, whatever Contact or SDP say, as a phone behind an outbound proxy does:
an exchange that announces its public address would else send its own test out to the router.
Runs on Python 3.6 and later.
"""

import secrets
import select
import socket
import time

from ansible_collections.labredes.pbx.plugins.module_utils.sip_message import (
    Message,
    SipError,
    address,
    audio_port,
    challenge,
    credentials,
    offer,
    parameter,
)

T1 = 0.5  # seconds until a request is sent again, doubled each time (RFC 3261, 17.1.1.1)
AGENT = "labredes.pbx verify"


def wait(parties, done, deadline):
    """Drive the parties until done() is true; False if deadline (monotonic seconds) came first."""
    while not done():
        now = time.monotonic()
        if now >= deadline:
            return False
        due = min([deadline] + [party.due for party in parties if party.due is not None])
        ready = select.select([party.socket for party in parties], [], [], max(0, due - now))[0]
        for party in parties:
            if party.socket in ready:
                party.receive()
        now = time.monotonic()
        for party in parties:
            party.act(now)
    return True


class Transaction:
    """A request under way: its responses so far, and when to send it again."""

    def __init__(self, request):
        self.request = request
        self.began = time.monotonic()
        self.authenticated = False
        self.provisional = []
        self.final = None
        self.again(request)

    def again(self, request):
        """Start over with a changed request (the one with credentials)."""
        self.request = request
        self.interval = T1
        self.due = time.monotonic() + T1

    @property
    def seconds(self):
        """How long the exchange took to the final response, challenge included."""
        return self.ended - self.began

    def finish(self, response):
        """Keep the final response and its time."""
        self.final, self.ended, self.due = response, time.monotonic(), None


class Call:
    """The one dialogue of a phone."""

    def __init__(self, call_id, local, remote, target):
        self.call_id = call_id
        self.local = local  # our side's From or To, with tag
        self.remote = remote  # the other side's, with tag once it is known
        self.target = target  # the URI for requests within the dialogue
        self.audio_port = None  # where the exchange wants our RTP
        self.ringing = False
        self.answered = False
        self.confirmed = False  # as the callee: the ACK has come
        self.ended = False


class Phone:
    """One account at an exchange.

    user, password: of the account. server: (IPv4 address, UDP port) of the exchange.
    media_port: the local port that our SDP names.
    """

    def __init__(self, user, password, server, media_port):
        self.user, self.password, self.server, self.media_port = user, password, server, media_port
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(server)  # so that a port nobody listens at is known at once
        self.host, self.port = self.socket.getsockname()
        self.cseq = 0
        self.transactions = {}
        self.call = None
        self.incoming = None  # the INVITE we have not answered yet
        self.answers = {}  # branch and method of a request -> the response we gave
        self.answer_due = None
        self.register_id = secrets.token_hex(8)

    # --- what a user of the phone does

    def register(self, seconds=60):
        """Ask for a registration of so many seconds; 0 ends it. Returns the transaction."""
        me = "<sip:%s@%s>" % (self.user, self.server[0])
        headers = [
            ("From", "%s;tag=%s" % (me, secrets.token_hex(4))),
            ("To", me),
            ("Call-ID", self.register_id),
            ("Contact", self._contact()),
            ("Expires", str(seconds)),
        ]
        return self._request("REGISTER", "sip:%s:%d" % self.server, headers)

    def dial(self, number):
        """Call an extension. Returns the transaction; self.call tells how far the call is."""
        target = "sip:%s@%s:%d" % ((number,) + self.server)
        me = "<sip:%s@%s>;tag=%s" % (self.user, self.server[0], secrets.token_hex(4))
        self.call = Call(secrets.token_hex(12), me, "<%s>" % target, target)
        headers = self._dialogue() + [("Contact", self._contact()), ("Content-Type", "application/sdp")]
        return self._request("INVITE", target, headers, offer(self.host, self.media_port))

    def answer(self):
        """Pick up the call that is ringing."""
        headers = [("Contact", self._contact()), ("Content-Type", "application/sdp")]
        self._respond(self.incoming, "200 OK", headers, offer(self.host, self.media_port))
        self.call.answered = True
        self.answer_due = time.monotonic() + T1

    def hang_up(self):
        """End the answered call. Returns the transaction."""
        return self._request("BYE", self.call.target, self._dialogue())

    def cancel(self, invite):
        """Give up an INVITE that has no final response. Returns the transaction of the CANCEL."""
        request = invite.request
        headers = [pair for pair in request.headers if pair[0] in ("Via", "From", "To", "Call-ID", "Max-Forwards")]
        number = request.get("CSeq").partition(" ")[0]
        message = Message(request.start.replace("INVITE", "CANCEL", 1), headers + [("CSeq", number + " CANCEL")])
        return self._launch(message)

    def close(self):
        """Give the port back."""
        self.socket.close()

    # --- what wait() does

    @property
    def due(self):
        """When act() wants to be called next (monotonic seconds), or None."""
        times = [item.due for item in self.transactions.values()] + [self.answer_due]
        return min([moment for moment in times if moment is not None], default=None)

    def act(self, now):
        """Send again what has had no answer for too long."""
        for item in self.transactions.values():
            if item.due is not None and item.due <= now:
                self._send(item.request)
                item.interval *= 2
                item.due = now + item.interval
        if self.answer_due is not None and self.answer_due <= now:
            self._send(self.answers[(self.incoming.branch, "INVITE")])
            self.answer_due = now + T1

    def receive(self):
        """Take one datagram and do what it asks; SipError if nobody listens at the exchange's port."""
        try:
            message = Message.parse(self.socket.recv(65535))
        except ConnectionError:
            raise SipError("nothing listens at UDP port %d of %s" % (self.server[1], self.server[0]))
        if message.status:
            self._response(message)
        else:
            self._asked(message)

    # --- responses to our requests

    def _response(self, message):
        item = self.transactions.get((message.branch, message.method))
        if item is None:
            return
        if message.status < 200:
            item.provisional.append(message.status)
            if message.method == "INVITE":
                item.due = None
                self.call.ringing = self.call.ringing or message.status in (180, 183)
            return
        if message.method == "INVITE":
            self._acknowledge(item, message)
        if item.final is not None:
            return
        if message.status in (401, 407) and not item.authenticated:
            self._authenticate(item, message)
            return
        item.finish(message)
        if message.method == "INVITE" and message.status >= 300:
            self.call.ended = True
        elif message.method == "INVITE":
            self.call.answered = True
            self.call.audio_port = audio_port(message.body)
        elif message.method == "BYE":
            self.call.ended = True

    def _authenticate(self, item, response):
        """Send a refused request once more, with credentials."""
        old = item.request
        uri = old.start.split(" ")[1]
        name = "Authorization" if response.status == 401 else "Proxy-Authorization"
        value = credentials(challenge(response), old.method, uri, self.user, self.password)
        changed = dict(self._fresh(old.method))
        headers = [(key, changed.get(key, text)) for key, text in old.headers] + [(name, value)]
        del self.transactions[(old.branch, old.method)]
        item.authenticated = True
        item.again(Message(old.start, headers, old.body))
        self.transactions[(item.request.branch, old.method)] = item
        self._send(item.request)

    def _acknowledge(self, item, response):
        """ACK a final response to INVITE: within the transaction if it failed, within the dialogue if not."""
        number = item.request.get("CSeq").partition(" ")[0]
        if response.status < 300:
            self.call.remote = response.get("To")
            self.call.target = address(response.get("Contact")) or self.call.target
            via, start = self._via(), "ACK %s SIP/2.0" % self.call.target
        else:
            via, start = item.request.get("Via"), item.request.start.replace("INVITE", "ACK", 1)
        headers = [
            ("Via", via),
            ("Max-Forwards", "70"),
            ("From", item.request.get("From")),
            ("To", response.get("To")),
            ("Call-ID", self.call.call_id),
            ("CSeq", number + " ACK"),
        ]
        self._send(Message(start, headers))

    # --- requests of the exchange

    def _asked(self, message):
        given = self.answers.get((message.branch, message.method))
        if given is not None:
            self._send(given)
        elif message.method == "ACK":
            self.answer_due = None
            if self.call is not None:
                self.call.confirmed = True
        elif message.method == "INVITE":
            self._invited(message)
        elif message.method == "CANCEL":
            self._respond(message, "200 OK")
            if self.incoming is not None and not self.call.answered:
                self._respond(self.incoming, "487 Request Terminated")
                self.call.ended = True
        elif message.method == "BYE":
            self._respond(message, "200 OK")
            if self.call is not None and self.call.call_id == message.get("Call-ID"):
                self.call.ended = True
        else:  # OPTIONS, NOTIFY and the like: a friendly phone
            self._respond(message, "200 OK")

    def _invited(self, message):
        """Ring for a new call; agree to a change of the one we have; be busy for a third."""
        if self.call is not None and self.call.call_id == message.get("Call-ID"):
            self.call.audio_port = audio_port(message.body) if message.body else self.call.audio_port
            headers = [("Contact", self._contact()), ("Content-Type", "application/sdp")]
            self._respond(message, "200 OK", headers, offer(self.host, self.media_port))
        elif self.call is not None:
            self._respond(message, "486 Busy Here")
        else:
            self.incoming = message
            local = "%s;tag=%s" % (message.get("To"), secrets.token_hex(4))
            self.call = Call(message.get("Call-ID"), local, message.get("From"), address(message.get("Contact")))
            self.call.audio_port = audio_port(message.body)
            self.call.ringing = True
            self._respond(message, "180 Ringing", [("Contact", self._contact())])

    def _respond(self, request, status, headers=(), body=""):
        to = request.get("To")
        if self.call is not None and self.call.call_id == request.get("Call-ID") and not parameter(to, "tag"):
            to = self.call.local
        copied = [("Via", value) for value in request.all("Via")]
        copied += [("Record-Route", value) for value in request.all("Record-Route")]
        copied += [
            ("From", request.get("From")),
            ("To", to),
            ("Call-ID", request.get("Call-ID")),
            ("CSeq", request.get("CSeq")),
            ("Server", AGENT),
        ]
        message = Message("SIP/2.0 " + status, copied + list(headers), body)
        self.answers[(request.branch, request.method)] = message
        self._send(message)

    # --- the wire

    def _request(self, method, uri, headers, body=""):
        fresh = self._fresh(method)
        message = Message(
            "%s %s SIP/2.0" % (method, uri),
            fresh[:1] + [("Max-Forwards", "70")] + headers + fresh[1:] + [("User-Agent", AGENT)],
            body,
        )
        return self._launch(message)

    def _launch(self, message):
        item = Transaction(message)
        self.transactions[(message.branch, message.method)] = item
        self._send(message)
        return item

    def _fresh(self, method):
        """The headers that differ from one request to the next."""
        self.cseq += 1
        return [("Via", self._via()), ("CSeq", "%d %s" % (self.cseq, method))]

    def _via(self):
        return "SIP/2.0/UDP %s:%d;rport;branch=z9hG4bK%s" % (self.host, self.port, secrets.token_hex(8))

    def _contact(self):
        return "<sip:%s@%s:%d>" % (self.user, self.host, self.port)

    def _dialogue(self):
        return [("From", self.call.local), ("To", self.call.remote), ("Call-ID", self.call.call_id)]

    def _send(self, message):
        try:
            self.socket.send(message.to_bytes())
        except ConnectionError:
            raise SipError("nothing listens at UDP port %d of %s" % (self.server[1], self.server[0]))
