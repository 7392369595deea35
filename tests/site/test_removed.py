"""What leaves the inventory leaves the exchange, and whoever gets a number later inherits nothing of it."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import sipp
import yaml
from playbook import play

ROOT = Path(__file__).resolve().parents[2]
GONE, SILENT = "6005", "6006"  # the phone that is taken out, and the one that loses its mailbox
PBX = "playbooks/pbx.yml"
BOTH = f"playbooks/asterisk.yml {PBX}"
GOES_ON = "an AMI or ARI user who is no longer described goes on until Asterisk is restarted"
SPOOL = "/var/spool/asterisk/voicemail"
ARCHIVE = "/var/lib/labredes/archive"
# A caller's message, the PIN that the user set by phone, and a greeting.
MAIL = "INBOX/msg0000.txt INBOX/msg0000.wav secret.conf unavail.wav"
LINE = "messages, greetings and PINs of mailboxes that are no longer described, {}, {}"
# What the exchange has: commands of Asterisk.
STATE = {
    "phones": "pjsip show endpoints",
    "contacts": "pjsip show contacts",
    "database": "database show",
    "mailboxes": "voicemail show users",
    "queues": "queue show",
    "agents": "agent show all",
    "conferences": "dialplan show services",
    "AMI users": "manager show users",
    "AMI sessions": "manager show connected",
    "ARI users": "ari show users",
    "ARI applications": "ari show apps",
}


class Site:
    """The lab's exchange, with other data in each run, and what was seen of it at that time."""

    def __init__(self, exchange, on_lab):
        self.exchange, self.on_lab = exchange, on_lab
        (file,) = Path(exchange.directory, "secrets").glob("*/phone_6001")
        self.directory = file.parent

    def run(self, playbooks: str, *options: str, **data: object) -> str:
        """Run playbooks, which is quicker than tags of site.yml, with other data; returns their output in one line."""
        self.exchange.data = {"other than": "the inventory's"}  # so that the next test has that again
        done = play(self.exchange.directory, *options, "-e", json.dumps(data), playbook=playbooks, seconds=120)
        assert done.returncode == 0, done.stdout[-3000:]
        return re.sub(r"\s+", " ", done.stdout)

    def cli(self, command: str) -> str:
        """The answer of Asterisk's command line."""
        return self.on_lab(f"asterisk -rx '{command}'")

    def state(self) -> dict[str, str]:
        """What Asterisk, the host and the secrets' directory have."""
        mark = "=== next"
        script = [f"asterisk -rx '{command}'" for command in STATE.values()]
        script += ["cat /etc/asterisk/extensions.lua", "getent group asterisk"]
        script.append(f"cd {SPOOL} && find . -type f | sort; find {ARCHIVE} -printf '%p %u %m\\n' 2>/dev/null || true")
        seen = self.on_lab(f"\necho {mark}\n".join(script)).split(f"{mark}\n")
        secrets = (f"{path.relative_to(self.directory)} {path.stat().st_mode:o}" for path in self.directory.rglob("*"))
        return dict(zip([*STATE, "call centres", "group", "files"], seen, strict=True)) | {
            "secrets": "\n".join(sorted(secrets))
        }

    def secret(self, name: str) -> str:
        """A generated secret."""
        return (self.directory / name).read_text().strip()

    def session(self, name: str, port: int, request: str) -> None:
        """Send a request from the host itself, over a connection that stays open until the exchange closes it."""
        script = f'exec 3<>/dev/tcp/127.0.0.1/{port}; printf "{request}" >&3; cat <&3 >/dev/null'
        self.on_lab(f"systemd-run --quiet --collect --unit=session-{name} bash -c '{script}'")

    def sessions(self) -> str:
        """The names of the sessions that are open."""
        return self.on_lab("systemctl list-units --plain --no-legend --state=active 'session-a*' | cut -d. -f1")

    def ends_sessions(self) -> bool:
        """Whether this release can end the sessions of AMI and of ARI; an early one has to be restarted for it."""
        commands = ("manager kick session", "ari shutdown websocket sessions")
        return not any("No such command" in self.cli(f"core show help {command}") for command in commands)


def use(site: Site, account: sipp.Account, stack: ExitStack, prompts) -> sipp.Line:
    """Have the new entries in use: a registration, messages, forwards, an agent, sessions; returns the agent's call."""
    assert sipp.register(account, 5099, expires=3600).code == 200
    agent = sipp.Line(stack, account, "7000", prompts, talking=False)
    assert agent.answered() and agent.hears("agent-loginok"), agent
    for command in (
        f"database put REDIRECT {GONE} 6001",
        f"database put REDIRECT 6001 {GONE}",
        "database put REDIRECT 6002 6003",
        f"queue add member PJSIP/{GONE} to ColaUno",
    ):
        site.cli(command)
    boxes = f"from-internal/{GONE} from-internal/{SILENT} from-internal/6001 from-internal/notes elsewhere/{GONE}"
    boxes = f"for box in {boxes}; do mkdir -p $box/INBOX && (cd $box && touch {MAIL}); done"
    site.on_lab(f"cd {SPOOL} && runuser -u asterisk -- sh -c '{boxes}'")
    login = f"Action: Login\\r\\nUsername: ops\\r\\nSecret: {site.secret('ami_ops')}\\r\\n\\r\\n"
    site.session("ami", 5038, login)
    upgrade = f"GET /ari/events?app=waiting&api_key=app:{site.secret('ari_app')} HTTP/1.1\\r\\nHost: x\\r\\n"
    upgrade += "Upgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n"
    site.session("ari", 8088, f"{upgrade}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\n\\r\\n")
    assert sipp.within(5, lambda: " ops " in site.cli("manager show connected"))
    assert sipp.within(5, lambda: "waiting" in site.cli("ari show apps"))
    return agent


@pytest.fixture(scope="module")
def story(exchange, on_lab, lab, lab_directory, prompts) -> dict:
    """One entry of each kind is described and used, taken out, and given to somebody else; what was seen each time."""
    defaults: dict = {}
    for file in ("pbx/defaults/main.yml", "asterisk/defaults/main/users.yml"):
        defaults |= yaml.safe_load((ROOT / "roles" / file).read_text())
    defaults |= yaml.safe_load((lab_directory / "inventory/hosts.yml").read_text())["all"]["vars"]
    phones, here, seen = defaults["pbx_phones"], Site(exchange, on_lab), {}
    silent = {"number": SILENT, "name": "Silent"}
    with ExitStack() as stack:
        stack.callback(
            on_lab, f"systemctl stop 'session-a*'; asterisk -rx 'database deltree REDIRECT'; rm -rf {ARCHIVE}"
        )
        stack.callback(on_lab, f"cd {SPOOL} && rm -rf elsewhere from-internal/notes from-internal/6001")
        here.run(
            BOTH,
            pbx_phones=[*phones, {"number": GONE, "name": "First Owner", "agent": "First Agent"}, silent],
            pbx_queues=[
                {"name": "ColaUno", "number": "8001", "agents": ["6001", "6002", "6003"]},
                {"name": "Ventas", "number": "8002", "agents": [GONE]},
            ],
            pbx_call_centres=[{"number": "11999", "departments": {"1": GONE}}],
            pbx_conferences=["6000", "6010"],
            pbx_applications=[{"number": "7100", "application": "waiting"}],
            asterisk_ami_users=[*defaults["asterisk_ami_users"], {"name": "ops"}],
            asterisk_ari_users=[*defaults["asterisk_ari_users"], {"name": "app"}],
            asterisk_group_members=["games"],
        )
        password = here.secret(f"phone_{GONE}")
        account = sipp.Account(GONE, password, lab["host"], lab["sip"]["udp"])
        agent = use(here, account, stack, prompts)
        seen["before"] = here.state()
        seen["check"] = here.run(PBX, "--check", pbx_phones=phones)
        seen["unchanged"] = here.state()
        without = {"pbx_phones": [*phones, {**silent, "mailbox": False}]}
        seen["run"] = here.run(BOTH, **without)
        seen["after"], seen["agent"] = here.state(), agent.ended()
        seen["ends sessions"], seen["during the call"] = here.ends_sessions(), here.sessions()
        if not seen["ends sessions"]:
            # The agent's call was in the way of a restart.
            here.run(BOTH, **without)
            later = here.state()
            seen["after"] |= {what: later[what] for what in ("AMI sessions", "ARI applications", "secrets")}
        seen["sessions"] = here.sessions()
        here.run(
            PBX,
            pbx_phones=[*phones, {"number": GONE, "name": "Second Owner"}, silent],
            labredes_sip_transports=["udp", "tcp", "wss"],
        )
        seen["given"] = here.state()
        seen["transports"] = here.cli("pjsip show transports") + on_lab("ss -Hltn 'sport = :5061'")
        seen["old password"] = sipp.register(account, 5099).code
        own = sipp.Account(GONE, here.secret(f"phone_{GONE}"), lab["host"], lab["sip"]["udp"])
        seen["new password"] = sipp.register(own, 5099, expires=0).code
        for archive in here.directory.glob("archive-*"):
            stack.callback(shutil.rmtree, archive)
        yield seen


@pytest.fixture(autouse=True)
def data_of_the_inventory() -> None:
    """These tests look at what was seen, and leave the exchange as it is."""


@pytest.mark.parametrize(
    ("what", "sign"),
    [
        ("phones", rf"\b{GONE}/{GONE}\b"),
        ("contacts", rf"\b{GONE}/sip:"),
        ("database", rf"registrar/contact/{GONE}|REDIRECT/{GONE} |: {GONE} *$"),
        ("mailboxes", rf"\b({GONE}|{SILENT})\b"),
        ("queues", rf"Ventas|PJSIP/{GONE}\b"),
        ("agents", rf"\b{GONE}\b"),
        ("conferences", r"'(6010|8002|11999|7100)'"),
        ("call centres", "11999"),
        ("AMI users", r"\bops\b"),
        ("AMI sessions", r"\bops\b"),
        ("ARI users", r"\bapp\b"),
        ("ARI applications", "waiting"),
        ("group", "games"),
        ("files", rf"from-internal/({GONE}|{SILENT})/"),
        ("secrets", rf"^(phone_{GONE}|mailbox_({GONE}|{SILENT})|ami_ops|ari_app) "),
    ],
)
def test_entry_taken_out_is_gone(story, what, sign):
    assert re.search(sign, story["before"][what], re.MULTILINE), story["before"][what]
    assert not re.search(sign, story["after"][what], re.MULTILINE), story["after"][what]


def test_sessions_of_removed_users_are_ended(story):
    assert story["agent"], "the agent is still logged in"
    assert "session-ami" not in story["sessions"]


def test_run_reports_sessions_that_go_on_during_calls(story):
    assert (GOES_ON in story["run"]) == (not story["ends sessions"])
    assert story["ends sessions"] or "session-ari" in story["during the call"]


def test_everything_else_stays(story):
    for state in (story["after"], story["given"]):
        assert re.search("/REDIRECT/6002 .*: 6003", state["database"]), state["database"]
        for box in ("from-internal/6001", "from-internal/notes", f"elsewhere/{GONE}"):
            assert all(f"./{box}/{file}\n" in state["files"] for file in MAIL.split()), state["files"]
        for name in ("phone_6001", "mailbox_6001", f"phone_{SILENT}", "ari_verify"):
            assert f"{name} 100600" in state["secrets"], state["secrets"]


def test_archive_of_mailboxes_is_complete_and_root_only(story):
    files = story["after"]["files"]
    assert f"{ARCHIVE} root 700\n" in files
    for number in (GONE, SILENT):
        for file in MAIL.split():
            assert re.search(rf"^{ARCHIVE}/\d{{8}}T\d{{6}}Z-voicemail-{number}/{file} ", files, re.MULTILINE), files
    assert f"archived {LINE.format(GONE, SILENT)}, in {ARCHIVE}." in story["run"]


def test_archive_of_secrets_is_complete_and_private(story):
    secrets = story["after"]["secrets"]
    for name in (f"phone_{GONE}", f"mailbox_{GONE}", f"mailbox_{SILENT}", "ami_ops", "ari_app"):
        assert re.search(rf"^archive-\d{{8}}T\d{{6}}Z/{name} 100600$", secrets, re.MULTILINE), secrets
    assert set(re.findall(r"^archive-\S+Z (\d+)$", secrets, re.MULTILINE)) == {"40700"}
    names = f"mailbox_{GONE}, mailbox_{SILENT}, phone_{GONE}"
    assert f"archived secrets that are no longer described, {names}, on the controller in " in story["run"]


def test_check_mode_reports_and_changes_nothing(story):
    assert f"would archive {LINE.format(GONE, SILENT)}, in {ARCHIVE}." in story["check"]
    assert "would archive secrets that are no longer described, " in story["check"]
    assert f"queue remove member PJSIP/{GONE} from ColaUno" in story["check"]
    for what in ("database", "files", "secrets"):
        assert story["unchanged"][what] == story["before"][what]


def test_new_owner_of_a_number_inherits_nothing(story):
    given = story["given"]
    assert re.search(rf"from-internal +{GONE} +Second Owner +exchange +0$", given["mailboxes"], re.MULTILINE), given[
        "mailboxes"
    ]
    assert not re.search(rf"from-internal/{GONE}/(INBOX/msg|secret|unavail)", given["files"]), given["files"]
    assert not re.search(rf"contact/{GONE}|REDIRECT/{GONE} |: {GONE} *$", given["database"], re.MULTILINE)
    assert f"PJSIP/{GONE}" not in given["queues"]
    assert (story["old password"], story["new password"]) == (401, 200)


def test_transport_taken_out_is_closed(story):
    assert "udp_transport" in story["transports"]
    assert "tls_transport" not in story["transports"] and ":5061" not in story["transports"]
