"""An archive of the exchange gives back what was lost, once, and nothing newer is touched."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from playbook import play

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import exchange_state  # noqa: E402

MAIL = "/var/spool/asterisk/voicemail/from-internal"
PIN = "274913"
FILL = f"""
set -e
box() {{ mkdir -p {MAIL}/$1/INBOX {MAIL}/$1/Old; cd {MAIL}/$1; }}
message() {{
    cp /var/lib/asterisk/sounds/es/vm-sorry.wav $1.wav
    printf '[message]\\norigtime=%s\\ncallerid="A" <6001>\\nduration=2\\nmsg_id=%s-00000001\\n' $2 $2 > $1.txt
}}
box 6002
message INBOX/msg0000 1600000000
message INBOX/msg0001 1600000100
message Old/msg0000 1590000000
cp /var/lib/asterisk/sounds/es/vm-goodbye.wav unavail.wav
printf '[general]\\npassword = {PIN}\\n' > secret.conf
mkdir -p /var/spool/asterisk/monitor
cp /var/lib/asterisk/sounds/es/beep.wav /var/spool/asterisk/monitor/talk.wav
"""
RECORDS = """cd / && sudo -u postgres psql -q asterisk -c "INSERT INTO cdr (calldate, src, dst, disposition, duration,
    billsec, uniqueid, linkedid, sequence) SELECT '2020-01-01'::timestamp + n * interval '1 h', '6001', '6002',
    'ANSWERED', 9, 7, 'backup-1577836800.' || n, 'backup-1577836800.' || n, n FROM generate_series(1, 200) n" """
CLEAR = f"""
rm -rf {MAIL}/6002 /var/spool/asterisk/monitor/talk.wav
asterisk -rx 'database deltree REDIRECT' >/dev/null
cd / && sudo -u postgres psql -q asterisk -c "DELETE FROM cdr WHERE uniqueid LIKE 'backup-%'"
asterisk -rx 'module reload app_voicemail' >/dev/null
"""


def run(directory: Path, playbook: str, *arguments: str) -> str:
    """The output of a playbook that ends well."""
    done = play(directory, *arguments, "-e", f"backup_directory={directory}/backups", playbook=f"playbooks/{playbook}")
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def changes(output: str) -> int:
    """The number of changes on the exchange."""
    return max(map(int, re.findall(r"changed=(\d+)", output)))


@pytest.fixture
def data(on_lab, lab_directory):
    """Messages, a greeting, a changed PIN, a recording, a forward and old records."""
    on_lab(CLEAR)
    on_lab(f"runuser -u asterisk -- sh -c {shlex.quote(FILL)}; asterisk -rx 'module reload app_voicemail'")
    on_lab("asterisk -rx 'database put REDIRECT 6002 6003'; " + RECORDS)
    yield
    on_lab(CLEAR)
    shutil.rmtree(lab_directory / "backups", ignore_errors=True)


def test_archive_gives_back_what_was_lost_and_nothing_twice(data, on_lab, lab_directory, telephones):
    before = exchange_state.of(on_lab)
    assert changes(run(lab_directory, "backup.yml", "--check"))
    assert not (lab_directory / "backups").exists()
    made = " ".join(run(lab_directory, "backup.yml").split())
    assert "3 messages, 1 greetings, 1 changed PINs and 1 forwards" in made, made
    on_lab(CLEAR)
    assert exchange_state.of(on_lab) != before
    would = run(lab_directory, "restore.yml", "--check")
    assert changes(would), would
    restored = run(lab_directory, "restore.yml")
    assert "200 call records added" in " ".join(restored.split()), restored
    assert exchange_state.of(on_lab) == before
    again = run(lab_directory, "restore.yml")
    assert changes(again) == 0, again
    owner = telephones.dial("6002", "6500", talking=False)
    assert owner.hears("vm-password"), owner
    owner.media.press(PIN + "#")
    assert owner.hears("vm-youhave"), owner
