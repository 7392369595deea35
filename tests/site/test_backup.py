"""An archive of the exchange gives back what was lost, once, and nothing newer is touched."""

from __future__ import annotations

import json
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


def test_copy_off_the_site_gives_back_what_was_lost(data, on_lab, lab_directory, tmp_path):
    """The exchange makes it by itself; the repository is a directory of the host."""
    variables = tmp_path / "restic.yml"
    variables.write_text(json.dumps({"backup_restic_repository": "/srv/copies", "backup_restic_keep": {"last": 1}}))
    restic = ["-e", f"@{variables}"]
    try:
        made = play(lab_directory, "--tags=restic", *restic, playbook="site.yml")
        assert made.returncode == 0, made.stdout[-3000:]
        assert "labredes-restic.timer" in on_lab("systemctl list-timers --no-legend labredes-restic.timer")
        before = exchange_state.of(on_lab)
        on_lab("systemctl start labredes-restic", seconds=60)
        logged = on_lab("journalctl --unit=labredes-restic --output=cat")
        assert "and 3 messages." in logged, logged
        assert on_lab("stat -c '%U %a' /etc/labredes-restic/secrets.json") == "root 600\n"
        # A second run changes nothing, and finds the copy.
        again = play(lab_directory, "--tags=restic,verify", *restic, playbook="site.yml")
        assert again.returncode == 0 and changes(again.stdout) == 0, again.stdout[-3000:]
        on_lab(CLEAR)
        fetched = run(lab_directory, "restic_fetch.yml", *restic)
        assert "is the copy latest, with" in " ".join(fetched.split()), fetched
        restored = run(lab_directory, "restore.yml")
        assert "200 call records added" in " ".join(restored.split()), restored
        assert exchange_state.of(on_lab) == before
        # A copy that fails is seen.
        on_lab("rm -r /srv/copies; systemctl start labredes-restic 2>/dev/null || true", seconds=60)
        assert on_lab("systemctl is-failed labredes-restic") == "failed\n"
        on_lab(r"sed -i -E 's/(\"(copied|checked)\": )[0-9]+/\1 5/g' /var/lib/labredes-restic/status.json")
        old = play(lab_directory, "--tags=verify", *restic, playbook="site.yml")
        assert "The last copy off the site was made and checked: 1970-01-01 00:00 UTC" in " ".join(old.stdout.split())
    finally:
        gone = play(lab_directory, "--tags=restic", playbook="site.yml")
        on_lab("rm -rf /srv/copies; systemctl reset-failed labredes-restic 2>/dev/null || true")
    assert gone.returncode == 0 and "restic" not in on_lab("ls /etc /etc/systemd/system /var/lib /usr/local/lib")
