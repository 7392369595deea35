"""Playbook verify.yml finds what does not run as described, and leaves nothing behind."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

from playbook import play
from sipp import within

CERTIFICATE = "/etc/ssl/labredes/certificate.pem"
BACKUP = "/var/tmp/certificate-before-the-test.pem"
# By hand in the files of the exchange, and loaded; the certificate is on disk alone. Asterisk reads it at its first
# connection over TLS, which an earlier test may not have made since Asterisk was restarted.
FAULTS = rf"""
cd /etc/asterisk
openssl s_client -connect 127.0.0.1:5061 < /dev/null
sed -i '/^\[6003\]/,/^$/d' pjsip.conf
sed -i 's/^callerid = .*<6002>/callerid = "Nobody" <6002>/' pjsip.conf
printf '\n[6099](phone)\nauth = 6001\naors = 6001\n' >> pjsip.conf
sed -i '/^exten => 6500,/,+2d' extensions.conf
sed -i 's/"11888"/"11889"/' extensions.lua
sed -i '/6002@agents/d' queues.conf
sed -i '/^6001 =>/d' voicemail.conf
cp -p {CERTIFICATE} {BACKUP}
for module in res_pjsip pbx_config pbx_lua app_queue app_voicemail; do asterisk -rx "module reload $module"; done
openssl req -x509 -new -key /etc/ssl/labredes/key.pem -subj /CN=other -days 9 > {CERTIFICATE}
"""
DIFFERENCES = [
    "Endpoint 6003 is missing.",
    "Auth 6003 is missing.",
    "Aor 6003 is missing.",
    "Endpoint 6099 is not described.",
    """Endpoint 6002 has callerid '"Nobody" <6002>' where '"Jose Ortega y Gasset" <6002>' is described.""",
    "Context services, extension 6500 is missing.",
    "Call centre 11888 is missing.",
    "Queue ColaUno, member Local/6002@agents is missing.",
    "Mailbox 6001 is missing.",
]


def traces(on_lab) -> str:
    """What there is of the verification in Asterisk and in the database."""
    return on_lab("""asterisk -rx 'core show channels concise' | grep verify
        for list in endpoints auths aors; do asterisk -rx "pjsip list $list" | grep verify; done
        asterisk -rx 'database show registrar' | grep verify
        cd / && sudo -u postgres psql -Atc "SELECT accountcode FROM cdr WHERE accountcode LIKE 'verify-%'" asterisk""")


def complaints(on_lab) -> int:
    """The number of warnings and errors in Asterisk's log.

    Without those of the events service, which asks for the contacts of the missing phone once a minute.
    """
    found = "grep -E '(WARNING|ERROR)\\[' /var/log/asterisk/messages"
    return int(on_lab(f"{found} | grep -cv \"information for AOR '6003'\" || true"))


def message(output: str) -> str:
    """The error of a failed run, its line breaks and quotes restored."""
    found = re.search(r'"msg": "(verify: .*?)"\}?$', output, re.MULTILINE)
    assert found, output[-3000:]
    return found[1].replace('\\"', '"')


def test_every_difference_is_named_and_cured(lab_directory, on_lab):
    on_lab(FAULTS)
    try:
        red = play(lab_directory, "--tags=verify")
    finally:
        before = complaints(on_lab)
        on_lab(f"cat {BACKUP} > {CERTIFICATE} && rm {BACKUP}")
        green = play(lab_directory, "--tags=pbx,verify")
    text = message(red.stdout)
    assert [difference for difference in DIFFERENCES if difference not in text] == [], text
    assert f"Over tls, port 5061 serves another certificate than that of {CERTIFICATE};" in text, text
    assert "Over wss, port 8089 serves another certificate" in text, text
    assert f", in {len(DIFFERENCES)} places; run playbooks asterisk.yml and pbx.yml" in text, text
    assert "a call went through over udp, udp6, tcp, tcp6, tls, tls6, wss:" in green.stdout, green.stdout[-3000:]
    assert traces(on_lab) == "" and complaints(on_lab) == before


def test_killed_verification_leaves_nothing(lab_directory, on_lab):
    with ThreadPoolExecutor() as pool:
        run = pool.submit(play, lab_directory, "--tags=verify", "-e", "labredes_verify_call_seconds=40")
        count = "asterisk -rx 'core show channels concise' | grep -c 'verify.*!Up!' || true"
        assert within(40, lambda: int(on_lab(count)) == 14), traces(on_lab)
        holder = on_lab("ss --no-header --udp --numeric --processes dst 127.0.0.1:5060")
        (process,) = set(re.findall(r"pid=(\d+)", holder))
        on_lab(f"kill -KILL {process}")
        assert within(15, lambda: traces(on_lab) == ""), traces(on_lab)
        assert run.result().returncode != 0


def test_frozen_asterisk_is_named_in_time(lab_directory, on_lab):
    process = on_lab("systemctl show --property=MainPID --value asterisk").strip()
    on_lab(f"kill -STOP {process}")
    try:
        start = time.monotonic()
        done = play(lab_directory, "--tags=verify")
        seconds = time.monotonic() - start
    finally:
        on_lab(f"kill -CONT {process}")
    sentence = r"verify: Asterisk did not answer [^.]*; restart it by `systemctl restart asterisk`, [^.]*\."
    assert re.fullmatch(sentence, message(done.stdout)), done.stdout
    assert seconds < 30


def test_phone_of_a_user_cannot_dial_the_temporary_ones(telephones):
    line = telephones.dial("6001", "verify-udp", answered=False, talking=False)
    assert within(10, lambda: line.over) and line.code == 404, line
