"""The test phone of verify_exchange against a minimal exchange and known answers."""

from __future__ import annotations

import re
import socket
import time

import pytest
from ansible_collections.labredes.pbx.plugins.module_utils import rtp, sip_message, sip_phone
from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection
from ansible_collections.labredes.pbx.plugins.module_utils.sip_message import Message, SipError

PASSWORD = "secret"


class Exchange:
    """A party of wait() that challenges every request, checks the digest, and answers as its script says.

    script: the status lines that answer an INVITE with right credentials, in order.
    """

    due = None

    def __init__(self, script=("200 OK",), loses=0):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        self.script, self.loses = script, loses
        self.seen, self.phone = [], None

    def act(self, now):
        """It sends nothing by itself."""

    def receive(self):
        data, self.phone = self.socket.recvfrom(65535)
        request = Message.parse(data)
        self.seen.append(request)
        if self.loses:
            self.loses -= 1
        elif request.method not in ("ACK",) and not request.status:
            self._answer(request)

    def _answer(self, request):
        given = request.get("Authorization")
        challenge = ("WWW-Authenticate", 'Digest realm="pbx", nonce="n1", algorithm=md5, qop="auth", opaque="o"')
        if request.method in ("BYE", "CANCEL"):
            self.reply(request, "200 OK")
        elif not given:
            stronger = ("WWW-Authenticate", 'Digest realm="x", nonce="n", algorithm=SHA-256')
            self.reply(request, "401 Unauthorized", [stronger, challenge])
        elif not self._right(request, given):
            self.reply(request, "403 Forbidden")
        elif request.method == "REGISTER":
            self.reply(request, "200 OK")
        else:
            for status in self.script:
                self.reply(request, status, body=sip_message.offer("203.0.113.9", 4000) if status[0] == "2" else "")

    @staticmethod
    def _right(request, given):
        field = dict(re.findall(r'(\w+)="?([^",]+)"?', given))
        asked = {"realm": "pbx", "nonce": "n1", "qop": "auth", "opaque": "o"}
        again = sip_message.credentials(
            asked, request.method, field["uri"], field["username"], PASSWORD, field["cnonce"]
        )
        return again == given and field["username"] == "login"

    def reply(self, request, status, headers=(), body=""):
        """Send a response with the headers of its request."""
        copied = [(name, request.get(name)) for name in ("Via", "From", "Call-ID", "CSeq")]
        copied += [("To", request.get("To") + ";tag=exchange"), ("Contact", "<sip:ex@203.0.113.9:5060>")]
        self.socket.sendto(Message("SIP/2.0 " + status, copied + list(headers), body).to_bytes(), self.phone)

    def send(self, method, call_id="call-1", body=""):
        """Send a request to the phone that sent the last one."""
        headers = [
            ("Via", "SIP/2.0/UDP x;branch=z9hG4bK" + method + call_id),
            ("From", "<sip:a@pbx>;tag=a"),
            ("To", "<sip:me@pbx>"),
            ("Call-ID", call_id),
            ("CSeq", "7 " + method),
            ("Contact", "<sip:a@203.0.113.9>"),
        ]
        self.socket.sendto(Message(method + " sip:me@pbx SIP/2.0", headers, body).to_bytes(), self.phone)


def phone_at(exchange, password=PASSWORD):
    return sip_phone.Phone("me", ("login", password), Connection("udp", exchange.address))


def drive(*parties, until, seconds=3):
    return sip_phone.wait(parties, until, seconds)


def test_credentials_are_those_of_rfc_2617():
    asked = {
        "realm": "testrealm@host.com",
        "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        "qop": "auth,auth-int",
        "opaque": "5ccc069c403ebaf9f0171e9517f40e41",
    }
    found = sip_message.credentials(asked, "GET", "/dir/index.html", "Mufasa", "Circle Of Life", cnonce="0a4f113b")
    assert 'response="6629fae49393a05397450978507c4ef1"' in found
    assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in found and "nc=00000001" in found


def test_challenge_without_md5_is_named():
    asked = ("WWW-Authenticate", 'Digest realm="r", nonce="n", algorithm=SHA-256')
    response = Message("SIP/2.0 401 Unauthorized", [asked])
    with pytest.raises(SipError, match="401 Unauthorized but offered no MD5 digest"):
        sip_message.challenge(response)


def test_response_names_its_transaction():
    message = Message.parse(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=b1;rport\r\nCSeq: 3 BYE\r\n\r\n")
    assert (message.status, message.transaction) == (200, ("b1", "BYE"))


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"hello", b"SIP/2.0 200 OK\r\nno colon here\r\n\r\n"])
def test_other_datagrams_are_refused(data):
    with pytest.raises(SipError):
        Message.parse(data)


@pytest.mark.parametrize("sdp", ["", "m=audio 0 RTP/AVP 0\r\n", "m=audio 4000 RTP/AVP 8 101\r\n"])
def test_sdp_without_pcmu_is_refused(sdp):
    with pytest.raises(SipError, match="without PCMU"):
        sip_message.audio_port(sdp)


def test_phone_registers_with_credentials():
    exchange = Exchange()
    phone = phone_at(exchange)
    asked = phone.register()
    assert drive(exchange, phone, until=lambda: asked.final)
    assert asked.final.status == 200 and 0 < asked.seconds < 3
    assert [request.get("CSeq") for request in exchange.seen] == ["1 REGISTER", "2 REGISTER"]


def test_wrong_password_is_sent_once():
    exchange = Exchange()
    phone = phone_at(exchange, "wrong")
    asked = phone.register()
    assert drive(exchange, phone, until=lambda: asked.final)
    assert asked.final.reason == "403 Forbidden" and len(exchange.seen) == 2


def test_lost_request_is_sent_again():
    exchange = Exchange(loses=1)
    phone = phone_at(exchange)
    asked = phone.register()
    assert drive(exchange, phone, until=lambda: asked.final)
    assert asked.final.status == 200 and asked.seconds >= sip_phone.RESEND


def test_silent_exchange_is_given_up_in_time():
    exchange = Exchange(loses=99)
    phone = phone_at(exchange)
    asked = phone.register()
    began = time.monotonic()
    assert not drive(exchange, phone, until=lambda: asked.final, seconds=0.3)
    assert time.monotonic() - began < 1


def test_closed_port_is_named_at_once():
    exchange = Exchange()
    exchange.socket.close()
    phone = phone_at(exchange)
    asked = phone.register()
    with pytest.raises(SipError, match=f"port {exchange.address[1]} of 127.0.0.1 is closed"):
        drive(phone, until=lambda: asked.final)


def test_call_is_set_up_and_ended():
    exchange = Exchange(("100 Trying", "180 Ringing", "200 OK"))
    phone = phone_at(exchange)
    asked = phone.dial("600")
    assert drive(exchange, phone, until=lambda: asked.final and exchange.seen[-1].method == "ACK")
    assert phone.call.ringing and phone.call.audio_port == 4000
    assert exchange.seen[-1].start == "ACK sip:ex@203.0.113.9:5060 SIP/2.0"
    ended = phone.hang_up()
    assert drive(exchange, phone, until=lambda: ended.final)
    assert phone.call.ended and exchange.seen[-1].get("To").endswith(";tag=exchange")


def test_refused_call_is_acknowledged_in_its_transaction():
    exchange = Exchange(("503 Service Unavailable",))
    phone = phone_at(exchange)
    asked = phone.dial("600")
    assert drive(exchange, phone, until=lambda: asked.final and exchange.seen[-1].method == "ACK")
    assert asked.final.reason == "503 Service Unavailable" and phone.call.ended
    assert exchange.seen[-1].transaction[0] == asked.message.transaction[0]


def test_called_phone_rings_answers_and_hangs_up():
    exchange = Exchange()
    phone = phone_at(exchange)
    asked = phone.register()
    drive(exchange, phone, until=lambda: asked.final)
    exchange.send("INVITE", body=sip_message.offer("127.0.0.1", 5000))
    assert drive(exchange, phone, until=lambda: exchange.seen[-1].status == 180)
    assert phone.call.audio_port == 5000
    exchange.send("INVITE", body=sip_message.offer("127.0.0.1", 5000))  # a repeated one is the same call
    phone.answer()
    assert drive(exchange, phone, until=lambda: exchange.seen[-1].status == 200)
    exchange.send("INVITE", body=sip_message.offer("127.0.0.1", 5000))
    answers = len(exchange.seen)
    assert drive(exchange, phone, until=lambda: len(exchange.seen) > answers), "a repeated INVITE is answered again"
    exchange.send("ACK")
    assert drive(exchange, phone, until=lambda: phone.call.confirmed)
    exchange.send("BYE")
    assert drive(exchange, phone, until=lambda: phone.call.ended)


def test_second_caller_hears_busy():
    exchange = Exchange()
    phone = phone_at(exchange)
    asked = phone.register()
    drive(exchange, phone, until=lambda: asked.final)
    for call_id, status in (("call-1", 180), ("call-2", 486)):
        exchange.send("INVITE", call_id, sip_message.offer("127.0.0.1", 5000))
        assert drive(exchange, phone, until=lambda status=status: exchange.seen[-1].status == status)


def streams():
    return rtp.Stream("127.0.0.1"), rtp.Stream("127.0.0.1")


def test_streams_count_the_frames_of_the_other():
    one, two = streams()
    one.start(("127.0.0.1", two.port), 10, two.mark)
    two.start(("127.0.0.1", one.port), 10, one.mark)
    began = time.monotonic()
    assert drive(one, two, until=lambda: len(one.received) == len(two.received) == 10)
    assert 0.17 < time.monotonic() - began < 1, "frames are 20 ms apart"


def test_stream_does_not_count_what_others_send():
    one, two = streams()
    one.start(("127.0.0.1", one.port), 5, two.mark)
    assert not drive(one, until=lambda: one.received, seconds=0.3), "an echo was counted"
    two.start(("127.0.0.1", one.port), 5, two.mark)
    one.expected = b"x" * 12
    assert not drive(one, two, until=lambda: one.received, seconds=0.3), "a stranger was counted"


class Silent(rtp.Stream):
    """A stream from which nothing arrives."""

    def act(self, now):
        self.sent = self.frames


@pytest.mark.parametrize(("lost", "who"), [(0, "called phone"), (1, "caller")])
def test_missing_audio_names_the_phone(lost, who):
    exchange = Exchange()
    phones = [phone_at(exchange), phone_at(exchange)]
    phones[lost].stream.__class__ = Silent
    for phone, other in (phones, phones[::-1]):
        phone.call = sip_phone.Call("id", "<sip:a@b>", "<sip:c@d>", "sip:c@d")
        phone.call.audio_port = other.stream.port
    with pytest.raises(SipError, match=f"the {who} received 0 of the 5 RTP frames"):
        sip_phone.exchange_audio(phones, 5)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (("404 Not Found",), "the exchange answered the INVITE with 404 Not Found"),
        (("180 Ringing",), "the call did not ring at both phones within 0.3 s"),
    ],
)
def test_failed_call_is_named(script, sentence, monkeypatch):
    exchange = Exchange(script)
    caller, callee = phone_at(exchange), phone_at(exchange)
    drives = sip_phone.wait
    monkeypatch.setattr(sip_phone, "wait", lambda parties, *rest: drives([exchange, *parties], *rest))
    with pytest.raises(SipError, match=sentence):
        sip_phone.place_call([caller, callee], 0.1, 0.3)
