# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""SIP messages (RFC 3261), digest credentials (RFC 2617, MD5 with qop=auth) and the SDP of one PCMU stream.

Only what a call to an Asterisk on the same machine takes, from Python's library alone. Runs on Python 3.6 and later.
"""

import hashlib
import re
import secrets


class SipError(Exception):
    """What went wrong in a call, as one sentence without its full stop."""


class Message:
    """One SIP request or response: start line, (name, value) headers in their order, and the SDP or "".

    status: of a response, else 0; reason: as in "503 Service Unavailable". method: also that which a response answers.
    transaction: what a response has in common with its request, the branch of the topmost Via and the method.
    """

    def __init__(self, start, headers=(), body=""):
        self.start, self.headers, self.body = start, list(headers), body
        first, _gap, self.reason = start.partition(" ")
        self.status = int(self.reason[:3]) if first == "SIP/2.0" and self.reason[:3].isdigit() else 0
        self.method = self.get("CSeq").partition(" ")[2] if self.status else first
        branch = re.search(r";\s*branch=([^;,\s]+)", self.get("Via"))
        self.transaction = (branch and branch.group(1), self.method)

    @classmethod
    def parse(cls, data):
        """The message in one datagram (bytes); SipError if it is none."""
        head, _gap, body = data.decode("utf-8", "replace").partition("\r\n\r\n")
        lines = head.split("\r\n")
        pairs = [line.partition(":") for line in lines[1:]]
        if "SIP/2.0" not in lines[0] or not all(colon for _name, colon, _value in pairs):
            raise SipError(f"a datagram that is no SIP message arrived, beginning with {data[:40]!r}")
        return cls(lines[0], [(name.strip(), value.strip()) for name, _colon, value in pairs], body)

    def to_bytes(self):
        """The datagram; Content-Length is computed here and nowhere else."""
        body = self.body.encode("utf-8")
        headers = self.headers + [("Content-Type", "application/sdp")] * bool(body)
        lines = [self.start] + [f"{name}: {value}" for name, value in headers]
        return "\r\n".join(lines + [f"Content-Length: {len(body)}", "", ""]).encode("utf-8") + body

    def get(self, name):
        """The first value of a header, or ""."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


def address(value):
    """The URI in a Contact, From or To header."""
    match = re.search(r"<([^>]*)>", value)
    return match.group(1) if match else value.partition(";")[0].strip()


def location(host, port):
    """Host and port as a URI has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def challenge(response):
    """The parameters of the MD5 challenge in a 401 or 407; SipError if it has none."""
    for name, value in response.headers:
        pairs = re.findall(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))', value)
        found = {key.lower(): quoted or bare for key, quoted, bare in pairs}
        is_digest = name.lower().endswith("-authenticate") and value.lower().startswith("digest ")
        if is_digest and found.get("algorithm", "MD5").upper() == "MD5":
            return found
    raise SipError(f"the exchange asked for credentials with {response.reason} but offered no MD5 digest")


def credentials(asked, method, uri, user, password, cnonce=None):
    """The Authorization header that answers a challenge; cnonce is random unless a test sets it."""

    def md5(*parts):
        return hashlib.md5(":".join(parts).encode("utf-8")).hexdigest()  # nosec: the method RFC 2617 prescribes

    cnonce = cnonce or secrets.token_hex(8)
    proof = md5(md5(user, asked["realm"], password), asked["nonce"], "00000001", cnonce, "auth", md5(method, uri))
    quoted = [("username", user), ("realm", asked["realm"]), ("nonce", asked["nonce"]), ("uri", uri)]
    quoted += [("response", proof), ("cnonce", cnonce)] + [pair for pair in asked.items() if pair[0] == "opaque"]
    fields = [f'{name}="{value}"' for name, value in quoted]
    return "Digest " + ", ".join(fields + ["algorithm=MD5", "qop=auth", "nc=00000001"])


def offer(host, port):
    """The SDP of one PCMU stream received at host (an IP address) and port."""
    where = f"IP{6 if ':' in host else 4} {host}"
    media = f"m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=sendrecv\r\n"
    return f"v=0\r\no=- 1 1 IN {where}\r\ns=-\r\nc=IN {where}\r\nt=0 0\r\n{media}"


def audio_port(sdp):
    """The port an SDP wants PCMU at; SipError if it has no PCMU audio."""
    match = re.search(r"^m=audio (\d+) \S+ ([\d ]+)", sdp, re.MULTILINE)
    if not match or match.group(1) == "0" or "0" not in match.group(2).split():
        raise SipError("the exchange agreed to a call without PCMU audio")
    return int(match.group(1))
