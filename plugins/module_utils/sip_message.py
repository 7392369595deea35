# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""SIP messages (RFC 3261), digest credentials (RFC 2617, MD5 with qop=auth) and the SDP of one PCMU stream.

Only what a call to an Asterisk on the same machine takes, from Python's library alone, so that
nothing has to be installed on an exchange to prove it works. Runs on Python 3.6 and later.
"""

import hashlib
import re
import secrets

CRLF = "\r\n"
# RFC 3261, 7.3.3: the one-letter names of headers.
COMPACT = {
    "c": "content-type",
    "f": "from",
    "i": "call-id",
    "l": "content-length",
    "m": "contact",
    "t": "to",
    "v": "via",
}
PCMU = 0


class SipError(Exception):
    """What went wrong in a call, as one sentence without its full stop."""


class Message:
    """One SIP request or response.

    start: the request line or status line, without its line end.
    headers: (name, value) pairs in the order of the wire; a name may occur more than once.
    body: the SDP, or "".
    """

    def __init__(self, start, headers=(), body=""):
        self.start = start
        self.headers = list(headers)
        self.body = body

    @classmethod
    def parse(cls, data):
        """The message in one datagram (bytes); SipError if it is none."""
        head, _gap, body = data.decode("utf-8", "replace").partition(CRLF * 2)
        lines = re.sub(r"\r\n[ \t]+", " ", head).split(CRLF)
        if "SIP/2.0" not in lines[0]:
            raise SipError("a datagram that is no SIP message arrived, beginning with %r" % data[:40])
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise SipError("a SIP message holds the header %r, which has no colon" % line)
            headers.append((name.strip(), value.strip()))
        return cls(lines[0], headers, body)

    def to_bytes(self):
        """The datagram; Content-Length is computed here and nowhere else."""
        body = self.body.encode("utf-8")
        lines = [self.start] + ["%s: %s" % pair for pair in self.headers] + ["Content-Length: %d" % len(body)]
        return (CRLF.join(lines) + CRLF * 2).encode("utf-8") + body

    def all(self, name):
        """Every value of a header, compact form included, in order."""
        wanted = name.lower()
        return [value for key, value in self.headers if COMPACT.get(key.lower(), key.lower()) == wanted]

    def get(self, name):
        """The first value of a header, or ""."""
        return (self.all(name) or [""])[0]

    @property
    def status(self):
        """The status code of a response; 0 for a request."""
        words = self.start.split(" ", 2)
        return int(words[1]) if words[0] == "SIP/2.0" and words[1].isdigit() else 0

    @property
    def reason(self):
        """What a response says, as in "503 Service Unavailable"."""
        return self.start.partition(" ")[2]

    @property
    def method(self):
        """The method of a request, or the method a response answers."""
        return self.get("CSeq").partition(" ")[2] if self.status else self.start.partition(" ")[0]

    @property
    def branch(self):
        """The branch of the topmost Via: the name of the transaction."""
        return parameter(self.get("Via"), "branch")


def parameter(value, name):
    """The value of a ;name=value parameter behind a header's address, or ""."""
    match = re.search(r";\s*%s=([^;,\s]+)" % re.escape(name), value.rpartition(">")[2], re.IGNORECASE)
    return match.group(1) if match else ""


def address(value):
    """The URI in a Contact, From or To header."""
    match = re.search(r"<([^>]*)>", value)
    return match.group(1) if match else value.partition(";")[0].strip()


def challenge(response):
    """The MD5 challenge of a 401 or 407 as a dictionary of its parameters; SipError if it has none."""
    name = "WWW-Authenticate" if response.status == 401 else "Proxy-Authenticate"
    for value in response.all(name):
        scheme, _gap, rest = value.partition(" ")
        pairs = re.findall(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))', rest)
        found = {key.lower(): quoted or bare for key, quoted, bare in pairs}
        if scheme.lower() == "digest" and found.get("algorithm", "MD5").upper() == "MD5":
            return found
    raise SipError("the exchange asked for credentials with %s but offered no MD5 digest" % response.reason)


def credentials(asked, method, uri, user, password, cnonce=None):
    """The value of the Authorization header that answers a challenge.

    asked: what challenge() returned. cnonce: the client's nonce; random unless a test sets it.
    """

    def md5(*parts):
        return hashlib.md5(":".join(parts).encode("utf-8")).hexdigest()  # nosec: the method RFC 2617 prescribes

    realm, nonce = asked.get("realm", ""), asked.get("nonce", "")
    secret, request = md5(user, realm, password), md5(method, uri)
    fields = [
        ("username", '"%s"' % user),
        ("realm", '"%s"' % realm),
        ("nonce", '"%s"' % nonce),
        ("uri", '"%s"' % uri),
        ("algorithm", "MD5"),
    ]
    if "auth" in re.split(r"[\s,]+", asked.get("qop", "")):
        cnonce = cnonce or secrets.token_hex(8)
        fields += [
            ("response", '"%s"' % md5(secret, nonce, "00000001", cnonce, "auth", request)),
            ("qop", "auth"),
            ("nc", "00000001"),
            ("cnonce", '"%s"' % cnonce),
        ]
    else:
        fields.append(("response", '"%s"' % md5(secret, nonce, request)))
    if "opaque" in asked:
        fields.append(("opaque", '"%s"' % asked["opaque"]))
    return "Digest " + ", ".join("%s=%s" % field for field in fields)


def offer(host, port):
    """The SDP of one PCMU stream received at host (IPv4) and port."""
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 " + host,
        "s=-",
        "c=IN IP4 " + host,
        "t=0 0",
        "m=audio %d RTP/AVP %d" % (port, PCMU),
        "a=rtpmap:%d PCMU/8000" % PCMU,
        "a=ptime:20",
        "a=sendrecv",
    ]
    return CRLF.join(lines) + CRLF


def audio_port(sdp):
    """The port an SDP wants PCMU at; SipError if it has no PCMU audio."""
    match = re.search(r"^m=audio (\d+) \S+ ([\d ]+)", sdp, re.MULTILINE)
    if not match or match.group(1) == "0" or str(PCMU) not in match.group(2).split():
        raise SipError("the exchange agreed to a call without PCMU audio")
    return int(match.group(1))
