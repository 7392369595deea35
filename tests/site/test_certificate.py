"""The certificate on every port of TLS: renewed on the host without a run, or the administrator's own behind links."""

from __future__ import annotations

import re
import socket
import ssl

import pytest
from playbook import play
from sipp import within

OURS = "/etc/ssl/labredes"
LIVE, ARCHIVE = "/etc/letsencrypt/live/pbx.test", "/etc/letsencrypt/archive/pbx.test"
OWN = f"labredes_tls_certificate={LIVE}/fullchain.pem labredes_tls_key={LIVE}/privkey.pem"
TAGS = "--tags=certificate,asterisk,pbx,events"
TIMER = "labredes-certificate.service"
# As an ACME client keeps it, with an intermediate certificate; a renewal has a new number and a new key.
ISSUE = f"""set -e; umask 027; cd /etc
install -d -m 0750 -g asterisk {LIVE} {ARCHIVE} letsencrypt/live letsencrypt/archive
cd {ARCHIVE}
openssl req -x509 -new -newkey rsa:2048 -nodes -subj /CN=pbx{{0}}.test -days {{1}} -keyout privkey{{0}}.pem \
    -out fullchain{{0}}.pem 2>/dev/null
openssl req -x509 -new -key privkey{{0}}.pem -subj /CN=issuer -days 900 >>fullchain{{0}}.pem
chgrp asterisk *; chmod 0640 privkey*
ln -sfn ../../archive/pbx.test/privkey{{0}}.pem {LIVE}/privkey.pem
ln -sfn ../../archive/pbx.test/fullchain{{0}}.pem {LIVE}/fullchain.pem
openssl x509 -in fullchain{{0}}.pem"""


@pytest.fixture
def served(lab):
    """A function that returns the certificates that SIP over TLS, WSS and the events service serve."""
    ports = [lab["sip"]["tls"], lab["sip"]["wss"], int(lab["events"]["url"].rpartition(":")[2])]
    assert all(ports), "the exchange under test has no TLS; add tls and wss to its labredes_sip_transports"
    return lambda: [ssl.get_server_certificate((lab["host"], port)).strip() for port in ports]


@pytest.fixture
def timer(on_lab):
    """A function that starts what the timer starts, and returns the warnings and errors that it logs."""

    def start(succeeds: bool = True) -> str:
        begun = on_lab("date +%s.%N").strip()
        on_lab(
            f"systemctl start {TIMER} {'' if succeeds else '&& exit 1 || systemctl reset-failed ' + TIMER}", seconds=60
        )
        return on_lab(f"journalctl --unit={TIMER} --since=@{begun} --priority=4 --output=cat --quiet")

    return start


@pytest.fixture
def own_certificate(lab_directory, on_lab):
    """A function that issues a certificate: its number and its days. Afterwards the exchange has its own one again."""
    yield lambda number, days: on_lab(ISSUE.format(number, days)).strip()
    on_lab("rm -rf /etc/letsencrypt")
    done = play(lab_directory, TAGS)
    assert done.returncode == 0, done.stdout[-3000:]


def process(on_lab) -> str:
    """The running process of Asterisk."""
    return on_lab("systemctl show asterisk --property=MainPID,NRestarts,ActiveEnterTimestampMonotonic")


def bundled(on_lab, directory: str = OURS) -> str:
    """The certificate in the PKCS#12 file."""
    return on_lab(
        f"cd {directory} && openssl pkcs12 -in certificate.p12 -passin file:passphrase -nokeys -clcerts | openssl x509"
    ).strip()


def options(connection: ssl.SSLSocket) -> str:
    """The first line of the answer to OPTIONS over a connection that is open."""
    here, port = connection.getsockname()
    connection.sendall(
        f"OPTIONS sip:exchange SIP/2.0\r\nVia: SIP/2.0/TLS {here}:{port};branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n"
        f"To: <sip:exchange>\r\nCall-ID: {port}@{here}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n"
        "Content-Length: 0\r\n\r\n".encode()
    )
    return connection.recv(65536).decode().splitlines()[0]


def test_timer_renews_during_a_call(lab, served, timer, telephones, on_lab, lab_directory):
    on_lab(f"""cd {OURS} && openssl req -x509 -new -key key.pem -subj /CN=ends -days 20 -out /tmp/ends
        cat /tmp/ends >certificate.pem; rm /tmp/ends; labredes-certificate-asterisk
        systemctl reload labredes-events""")
    old, key, before = on_lab(f"cat {OURS}/certificate.pem").strip(), on_lab(f"cat {OURS}/key.pem"), process(on_lab)
    assert served() == [old] * 3
    callee = telephones.answering("6002")
    caller = telephones.dial("6001", "6002")
    assert callee.talks() and caller.hears_party(callee.media)
    context = ssl._create_unverified_context()
    with context.wrap_socket(socket.create_connection((lab["host"], lab["sip"]["tls"]), timeout=5)) as open_before:
        assert timer() == ""
        new = on_lab(f"openssl x509 -in {OURS}/certificate.pem").strip()
        assert served() == [new] * 3 != [old] * 3
        assert bundled(on_lab) == new
        assert options(open_before).startswith("SIP/2.0 "), "a connection over TLS was closed"
    assert on_lab(f"cat {OURS}/key.pem") == key
    heard = len(caller.media.heard)
    assert within(5, lambda: caller.media.heard[heard:].count(callee.media.mark) > 50), "the audio has stopped"
    assert not caller.over and process(on_lab) == before
    done = play(lab_directory, TAGS, "--skip-tags=none")
    assert done.returncode == 0 and served() == [new] * 3, done.stdout[-3000:]
    assert process(on_lab) == before
    assert re.search(r"changed=0\b.*failed=0", play(lab_directory, TAGS).stdout.splitlines()[-2])


def test_own_certificate_behind_links_is_served_and_watched(own_certificate, served, timer, on_lab, lab_directory):
    first = own_certificate(1, 60)
    done = play(lab_directory, TAGS, "-e", OWN)
    assert done.returncode == 0, done.stdout[-3000:]
    assert served() == [first] * 3 and bundled(on_lab) == first
    before = process(on_lab)
    second = own_certificate(2, 60)
    assert served() == [first] * 3
    assert timer() == ""
    assert served() == [second] * 3 and bundled(on_lab) == second
    own_certificate(3, 10)
    sentence = f"The certificate {LIVE}/fullchain.pem expires at "
    assert sentence in timer()
    done = play(lab_directory, TAGS, "-e", OWN)
    assert done.returncode == 0 and f": {sentence}" in done.stdout, done.stdout[-3000:]
    # A renewal that Asterisk's user cannot read leaves what Asterisk serves, and one with the wrong key what all serve.
    third = served()
    fourth = own_certificate(4, 60)
    on_lab(f"chgrp root {ARCHIVE}/privkey4.pem")
    assert f"The user asterisk cannot read {LIVE}/privkey.pem" in timer(succeeds=False)
    refused = play(lab_directory, TAGS, "-e", OWN)
    assert refused.returncode != 0 and f"the user asterisk cannot read {LIVE}/privkey.pem" in refused.stdout
    on_lab(f"ln -sfn ../../archive/pbx.test/privkey1.pem {LIVE}/privkey.pem")
    assert "privkey.pem is not the key of" in timer(succeeds=False)
    assert served()[:2] == third[:2] and served()[2] == fourth and process(on_lab) == before
