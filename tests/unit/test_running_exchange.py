"""What is read from Asterisk, and how each kind of difference from a description is named."""

from __future__ import annotations

import asterisk_files
import pytest
import rendering
import yaml
from ansible_collections.labredes.pbx.plugins.module_utils import asterisk_cli, running_exchange
from test_dialplan import steps

ENDPOINTS = """
 Endpoint:  <Endpoint/CID.....................................>  <State.....>  <Channels.>
==========================================================================================

 Endpoint:  6001/6001                                            Unavailable   0 of inf
 Endpoint:  6002                                                 Not in use    0 of inf
 Endpoint:  verify-udp/verify                                    In use        1 of inf

Objects found: 3
"""
AUTHS = """
  I/OAuth:  <AuthId/UserName.............................................................>
==========================================================================================

     Auth:  6001/6001

Objects found: 1
"""
AORS = """
      Aor:  <Aor..............................................>  <MaxContact>
==========================================================================================

      Aor:  6001                                                 1
"""
TRANSPORTS = """
Transport:  <TransportId........>  <Type>  <cos>  <tos>  <BindAddress....................>
==========================================================================================

Transport:  udp_transport             udp      3    144  0.0.0.0:5060
"""
DIALPLAN = """
[ Context 'from-internal' created by 'pbx_config' ]
  Include =>        'phones'                                      [pbx_config]
  Include =>        'unknown'                                     [pbx_config]

[ Context 'phones' created by 'pbx_config' ]
  '6001' =>         1. Gosub(ring-phone,s,1(6001))                [extensions.conf:20]
                    2. Hangup()                                   [extensions.conf:21]
  '6002' =>         hint: PJSIP/6002                              [extensions.conf:22]
                    1. Set(A='b')                                 [extensions.conf:23]

[ Context 'verify' created by 'pbx_config' ]
  'verify-udp' (CID match 'verify') => 1. Gosub(ring-phone,s,1(verify-udp)) [extensions.conf:9]

[ Context 'call-centres' created by 'pbx_lua' ]
  Alt. Switch =>    'Lua/'                                        [pbx_lua]
"""
QUEUES = """\
ColaUno has 2 calls (max unlimited) in 'ringall' strategy (0s holdtime, 0s talktime), W:0, C:0, A:0, SL:0.0%, SL2:0.0%
   Members: \n\
      Ana (ventas) (Local/6001@agents from Agent:6001) (ringinuse disabled)\x1b[0m (\x1b[1;31;40mUnavailable\x1b[0m) has
      Jose (PJSIP/6002) (ringinuse disabled)\x1b[1;36;40m (dynamic)\x1b[0m\x1b[0m (Not in use) has taken no calls yet
      PJSIP/6003 (ringinuse disabled) (Unavailable) has taken 3 calls (last was 5 secs ago)
   Callers: \n\
      1. PJSIP/6004-00000001 (wait: 0:05, prio: 0)

Ventas has 0 calls (max 10) in 'rrmemory' strategy (0s holdtime, 0s talktime), W:0, C:0, A:0, SL:0.0%, SL2:0.0%
   No Members
   No Callers

"""
AGENTS = """\
Agent-ID Name                 State       Channel                        Talking with
6001     Mark Spencer         UNAVAILABLE                                \n
Defined agents: 1, Logged in: 0, Talking: 0
"""
MAILBOXES = """\
Context    Mbox  User                      Zone       NewMsg
from-internal 6001  Paquito Txokolatero       exchange        0
from-internal 6002  Manuela Carmena Vuelve Ñandú          12
2 voicemail users configured.
"""
OUTPUT = {
    "pjsip list endpoints": ENDPOINTS,
    "pjsip list auths": AUTHS,
    "pjsip list aors": AORS,
    "pjsip list transports": TRANSPORTS,
    "dialplan show": DIALPLAN,
    "queue show": QUEUES,
    "agent show all": AGENTS,
    "voicemail show users": MAILBOXES,
    "cel show status": "CEL Logging: Enabled\nCEL Event Subscriber: CEL sqlite3 custom backend\n"
    "CEL Event Subscriber: Manager Event Logging\n",
    "confbridge show profile bridges": "--------- Bridge Profiles -----------\nexchange_bridge\ndefault_bridge\n",
    "confbridge show profile users": "--------- User Profiles -----------\ndefault_user\nexchange_user\n",
}
# What OUTPUT and SETTINGS show.
DESCRIBED = {
    "endpoint": {"6001": {"context": "from-internal", "direct_media": "no", "PHONE": "6001"}, "6002": None},
    "auth": {"6001": {"username": "6001", "password": "right"}},
    "aor": {"6001": {"max_contacts": "1"}},
    "transport": {"udp_transport": {"protocol": "udp", "bind": "0.0.0.0:5060"}},
    "context from-internal, include": {"phones": None, "unknown": None},
    "context from-internal, extension": None,
    "context phones, extension": {"6001": None, "6002": None},
    "queue": {"ColaUno": {"strategy": "ringall"}, "Ventas": {"strategy": "rrmemory"}},
    "queue ColaUno, member": {"Local/6001@agents": {"membername": "Ana (ventas)"}, "PJSIP/6003": None},
    "queue Ventas, member": None,
    "agent": {"6001": None},
    "mailbox": {
        "6001": {"context": "from-internal", "tz": "exchange", "fullname": "Paquito Txokolatero"},
        "6002": {"context": "from-internal", "fullname": "Manuela Carmena Vuelve Ñandú"},
    },
    "record of channel events by": {"CEL sqlite3 custom backend": None},
    "conference bridge": {"exchange_bridge": None},
    "conference user": {"exchange_user": None},
}
SETTINGS = {
    ("endpoint", "6001"): {"context": "from-internal", "direct_media": "false", "PHONE": "6001", "callerid": "x"},
    ("auth", "6001"): {"username": "6001", "password": "right"},
    ("aor", "6001"): {"max_contacts": "1"},
    ("transport", "udp_transport"): {"protocol": "udp", "bind": "0.0.0.0:5060"},
}


class Ari:
    """Answers with settings."""

    def __init__(self, settings):
        self.settings = settings

    def object(self, method, kind, name):
        assert method == "GET" and not name.startswith("verify")
        return self.settings.get((kind, name))


def found(monkeypatch, described=DESCRIBED, command=None, change=("", ""), settings=SETTINGS):
    """The differences where the output of a command is changed."""
    assert command is None or change[0] in OUTPUT[command], "the fault is not planted"
    monkeypatch.setattr(
        running_exchange,
        "cli",
        lambda asked, _seconds: OUTPUT[asked].replace(*change) if asked == command else OUTPUT[asked],
    )
    return running_exchange.differences(described, running_exchange.running(described, Ari(settings), 1))


def test_exchange_as_described_has_no_difference(monkeypatch):
    assert found(monkeypatch) == []


@pytest.mark.parametrize(
    ("command", "change", "sentence"),
    [
        ("pjsip list endpoints", (" Endpoint:  6001/6001", ""), "endpoint 6001 is missing"),
        ("pjsip list endpoints", ("6002 ", "6009/x "), "endpoint 6009 is not described"),
        ("pjsip list auths", ("6001/6001", "7/7"), "auth 7 is not described"),
        ("pjsip list aors", ("6001", "6008"), "aor 6008 is not described"),
        ("pjsip list transports", ("udp_transport", "old_one"), "transport udp_transport is missing"),
        ("pjsip list transports", ("udp_transport", "old_one"), "transport old_one is not described"),
        ("dialplan show", ("'phones'     ", "'other'"), "context from-internal, include phones is missing"),
        ("dialplan show", ("  '6001' =>", ""), "context phones, extension 6001 is missing"),
        ("dialplan show", ("'6002' =>", "'_6XXX' =>"), "context phones, extension _6XXX is not described"),
        ("dialplan show", ("'unknown' ", "'all' "), "context from-internal, include all is not described"),
        ("queue show", ("Ventas", "Compras"), "queue Ventas is missing"),
        ("queue show", ("Ventas", "Compras"), "queue Compras is not described"),
        ("queue show", ("rrmemory", "random"), "queue Ventas has strategy 'random' where 'rrmemory' is described"),
        ("queue show", ("Local/6001@", "Local/6009@"), "queue ColaUno, member Local/6001@agents is missing"),
        ("queue show", ("(dynamic)", ""), "queue ColaUno, member PJSIP/6002 is not described"),
        (
            "queue show",
            ("Ana (ventas)", "Eva"),
            "queue ColaUno, member Local/6001@agents has membername 'Eva' where 'Ana (ventas)' is described",
        ),
        ("agent show all", ("6001  ", "6007  "), "agent 6001 is missing"),
        ("agent show all", ("6001  ", "6007  "), "agent 6007 is not described"),
        ("voicemail show users", ("6001", "6005"), "mailbox 6001 is missing"),
        ("voicemail show users", ("6001", "6005"), "mailbox 6005 is not described"),
        (
            "voicemail show users",
            ("from-internal 6002", "default 6002"),
            "mailbox 6002 has context 'default' where 'from-internal' is described",
        ),
        (
            "voicemail show users",
            ("Paquito", "Paco"),
            "mailbox 6001 has fullname 'Paco Txokolatero' where 'Paquito Txokolatero' is described",
        ),
        (
            "cel show status",
            ("CEL Event Subscriber: CEL", "CEL"),
            "record of channel events by CEL sqlite3 custom backend is missing",
        ),
        (
            "cel show status",
            ("sqlite3 custom", "sqlite3 former"),
            "record of channel events by CEL sqlite3 former backend is not described",
        ),
        ("confbridge show profile bridges", ("exchange_bridge", ""), "conference bridge exchange_bridge is missing"),
        ("confbridge show profile users", ("exchange_user", ""), "conference user exchange_user is missing"),
    ],
)
def test_difference_in_a_list_is_named(monkeypatch, command, change, sentence):
    assert sentence in found(monkeypatch, command=command, change=change)


@pytest.mark.parametrize(
    ("kind", "name", "setting", "value", "sentence"),
    [
        ("endpoint", "6001", "context", "x", "endpoint 6001 has context 'x' where 'from-internal' is described"),
        ("endpoint", "6001", "direct_media", "true", "endpoint 6001 has direct_media 'yes' where 'no' is described"),
        ("endpoint", "6001", "PHONE", None, "endpoint 6001 has PHONE None where '6001' is described"),
        ("aor", "6001", "max_contacts", "2", "aor 6001 has max_contacts '2' where '1' is described"),
        (
            "transport",
            "udp_transport",
            "bind",
            "0.0.0.0:5070",
            "transport udp_transport has bind '0.0.0.0:5070' where '0.0.0.0:5060' is described",
        ),
        ("auth", "6001", "password", "wrong", "auth 6001 has another password than the one described"),
    ],
)
def test_difference_of_a_setting_is_named(monkeypatch, kind, name, setting, value, sentence):
    settings = {**SETTINGS, (kind, name): {**SETTINGS[kind, name], setting: value}}
    assert found(monkeypatch, settings=settings) == [sentence]


def test_only_described_kinds_are_compared(monkeypatch):
    assert found(monkeypatch, described={"agent": DESCRIBED["agent"]}) == []


def test_frozen_asterisk_is_given_up_in_time(monkeypatch, tmp_path):
    program = tmp_path / "asterisk"
    program.write_text("#!/bin/sh\nexec sleep 9\n")
    program.chmod(0o755)
    monkeypatch.setattr(asterisk_cli, "ASTERISK", str(program))
    with pytest.raises(asterisk_cli.AsteriskError, match=r"within 0.2 s; restart it by `systemctl restart"):
        asterisk_cli.cli("queue show", 0.2)


def test_asterisk_that_cannot_be_reached_is_named(monkeypatch, tmp_path):
    program = tmp_path / "asterisk"
    program.write_text("#!/bin/sh\necho Unable to connect >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(asterisk_cli, "ASTERISK", str(program))
    with pytest.raises(asterisk_cli.AsteriskError, match=r"control socket \(Unable to connect\); restart it"):
        asterisk_cli.cli("queue show", 2)


@pytest.fixture(scope="module", params=["defaults", "unusual"])
def known(request, tmp_path_factory):
    """The variables of the two descriptions."""
    description = {} if request.param == "defaults" else rendering.UNUSUAL
    return rendering.variables(rendering.FACTS["Debian 12"], description, tmp_path_factory.mktemp("secrets"), "pbx")


@pytest.fixture(scope="module")
def described(known):
    """What playbook verify.yml says that must run."""
    text = rendering.render(rendering.ROOT / "playbooks/templates/described.yml.j2", known)
    return {kind: objects or {} for kind, objects in yaml.safe_load(text).items()}


def sections(known, name):
    """The sections of a file of role pbx that are no templates."""
    parsed = asterisk_files.parse(rendering.render(rendering.ROLES / f"pbx/templates/etc/asterisk/{name}.j2", known))
    return parsed, [section for section in parsed if not section.template]


@pytest.mark.parametrize("kind", ["endpoint", "auth", "aor"])
def test_described_phones_are_those_of_pjsip_conf(kind, described, known):
    parsed, all_sections = sections(known, "pjsip.conf")
    written = {s.name: s for s in all_sections if asterisk_files.setting(parsed, s, "type") == kind}
    assert written.keys() == described[kind].keys() and written
    for name, settings in described[kind].items():
        for setting, value in settings.items():
            if setting == "PHONE":
                setting, value = "set_var", f"PHONE={value}"
            found = asterisk_files.setting(parsed, written[name], setting) or {
                "webrtc": "no",
                "media_encryption": "no",
            }.get(setting, "")
            assert value == (f"({found.replace(',', '|')})" if setting == "allow" else found), (name, setting)


def test_described_transports_are_those_of_the_file(described, known):
    _parsed, transports = sections(known, "pjsip_transports.conf")
    assert described["transport"].keys() == {section.name for section in transports}
    for section in transports:
        wanted = {key: section.get(key) or "" for key in described["transport"][section.name]}
        assert described["transport"][section.name] == wanted


def test_described_numbers_are_those_of_the_dialplan(described, known):
    text = rendering.render(rendering.ROLES / "pbx/templates/etc/asterisk/extensions.conf.j2", known)
    for context in ("phones", "mailboxes", "agents", "services"):
        extensions = {step.extension for step in steps(text) if step.context == context}
        assert described[f"context {context}, extension"].keys() == extensions, context
    (internal,) = (section for section in asterisk_files.parse(text) if section.name == "from-internal")
    assert internal.settings == [("include", name) for name in described["context from-internal, include"]]
    centres = {step.extension for step in steps(text) if step.arguments.startswith("call-centres,")}
    assert described["call centre"].keys() == centres


def test_described_queues_are_those_of_the_file(described, known):
    _parsed, queues = sections(known, "queues.conf")
    queues = [section for section in queues if section.name != "general"]
    assert described["queue"] == {section.name: {"strategy": section.get("strategy")} for section in queues}
    for section in queues:
        members = [value.split(",") for key, value in section.settings if key == "member"]
        wanted = {member[0]: {"membername": member[2]} for member in members}
        assert (described[f"queue {section.name}, member"] or {}) == wanted


def test_described_mailboxes_and_agents_are_those_of_the_files(described, known):
    _parsed, boxes = sections(known, "voicemail.conf")
    (own,) = (section for section in boxes if section.name == "from-internal")
    fields = {number: value.split(",") for number, value in own.settings}
    assert described["mailbox"] == {
        number: {"context": "from-internal", "tz": "exchange", "fullname": field[1]} for number, field in fields.items()
    }
    _parsed, agents = sections(known, "agents.conf")
    assert described["agent"].keys() == {section.name for section in agents}
