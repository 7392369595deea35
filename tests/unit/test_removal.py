"""What is found of phones and users that are no longer described, from the answers of Asterisk."""

from __future__ import annotations

import os
import subprocess

import pytest
import rendering
import yaml

DATABASE = """\
/REDIRECT/6001                                    : 6004
/REDIRECT/6002                                    : 6003
/REDIRECT/6004                                    : 6001
/pbx/UUID                                         : 3b0c
/registrar/contact/6001;@37eb                     : {"uri":"sip:6001@192.0.2.1","endpoint":"6001"}
/registrar/contact/6004;@9c1f0e6bb4a1d2c3f4a5968778695a4b: {"uri":"sip:6004@192.0.2.4","endpoint":"6004"}
/registrar/contact/verify-callee;@1a              : {"endpoint":"verify-callee"}
/subscription_persistence/0f3e2d1c-5b6a-4798-8695-a4b3c2d1e0f9: {"packet":"SUBSCRIBE","endpoint":"6004","tag":"x"}
/subscription_persistence/77aa                    : {"packet":"SUBSCRIBE sip:6500","endpoint":"6001","tag":"y"}
9 results found.
"""
QUEUES = """\
ColaUno has 0 calls (max unlimited) in 'ringall' strategy (0s holdtime, 0s talktime), W:0, C:0, A:0, SL:0.0%
   Members:
      Mark (Local/6001@agents from Agent:6001) (ringinuse disabled) (Unavailable) has taken no calls yet
      Jose (PJSIP/6002) (ringinuse disabled) (dynamic) (Not in use) has taken no calls yet
      Gone (PJSIP/6004) (ringinuse disabled) (dynamic) (Not in use) has taken no calls yet
   No Callers

Ventas has 0 calls (max unlimited) in 'ringall' strategy (0s holdtime, 0s talktime), W:0, C:0, A:0, SL:0.0%
   Members:
      PJSIP/6004 (ringinuse disabled) (dynamic) (Not in use) has taken no calls yet
   No Callers
"""
# sudo's line where the name of the host cannot be resolved, as raw returns it.
UNRESOLVED = "sudo: unable to resolve host pbx1.example.org: Name or service not known\n"
SESSIONS = (
    UNRESOLVED
    + """\
asterisk:x:998:ana,ben
  Username         IP Address                                               Start       Elapsed     FileDes   HttpCnt
  events           127.0.0.1                                                1795660059  12          31        0
  a-name-of-fifte  192.0.2.9                                                1795660059  12          32        0
  ops              2001:db8::7                                              1795660059  12          33        0
                   192.0.2.8                                                1795660059  1           34        0
4 users connected.
"""
)


@pytest.fixture
def known(tmp_path):
    """A function that returns the variables of a role on a host with a description."""

    def variables(role: str, **description: object) -> dict:
        facts = rendering.FACTS["Debian 11"]
        return {**rendering.variables(facts, description, tmp_path, role), "__pbx_kept": {"stdout_lines": []}}

    return variables


@pytest.fixture
def kept(tmp_path):
    """The lines that the task of role pbx lists on a host with these answers and mailboxes."""
    (tmp_path / "mail" / "6001").mkdir(parents=True)
    for name in ("6004", "6002", "notes"):
        (tmp_path / "mail" / name).mkdir()
    program = tmp_path / "asterisk"
    program.write_text(f"#!/bin/sh\ncase $2 in d*) cat <<'E'\n{DATABASE}E\n;; *) cat <<'E'\n{QUEUES}E\n;; esac\n")
    program.chmod(0o755)
    tasks = yaml.safe_load((rendering.ROLES / "pbx/tasks/removed.yml").read_text())
    (command,) = (task["labredes.pbx.look"]["script"] for task in tasks if "labredes.pbx.look" in task)
    command = command.replace("{{ __pbx_mail }}", str(tmp_path / "mail"))
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=path, check=True
    ).stdout.splitlines()


def phones(*numbers: str, without_mailbox: tuple[str, ...] = ()) -> list[dict]:
    """Phones with these numbers."""
    return [
        {"number": number, "name": "x", **({"mailbox": "false"} if number in without_mailbox else {})}
        for number in numbers
    ]


def test_state_of_removed_phones_is_found(known, kept):
    described = {**known("pbx", pbx_phones=phones("6001", "6002", "6003")), "__pbx_kept": {"stdout_lines": kept}}
    assert sorted(rendering.evaluate("{{ __pbx_commands }}", described)) == [
        "database del REDIRECT 6001",
        "database del REDIRECT 6004",
        "database del registrar/contact 6004;@9c1f0e6bb4a1d2c3f4a5968778695a4b",
        "database del subscription_persistence 0f3e2d1c-5b6a-4798-8695-a4b3c2d1e0f9",
        "queue remove member PJSIP/6004 from ColaUno",
        "queue remove member PJSIP/6004 from Ventas",
    ]
    assert rendering.evaluate("{{ __pbx_left_mailboxes }}", described) == ["6004"]


def test_described_phones_leave_nothing_to_remove(known, kept):
    everyone = phones("6001", "6002", "6003", "6004")
    described = {**known("pbx", pbx_phones=everyone), "__pbx_kept": {"stdout_lines": kept}}
    assert rendering.evaluate("{{ __pbx_commands + __pbx_left_mailboxes }}", described) == []


def test_number_is_compared_as_a_whole(known, kept):
    described = {**known("pbx", pbx_phones=phones("60", "600", "60041", "16004")), "__pbx_kept": {"stdout_lines": kept}}
    assert "database del REDIRECT 6004" in rendering.evaluate("{{ __pbx_commands }}", described)


def test_exchange_without_phones_keeps_nothing(known, kept):
    described = {**known("pbx", pbx_phones=[]), "__pbx_kept": {"stdout_lines": kept}}
    assert len(rendering.evaluate("{{ __pbx_commands }}", described)) == 10
    assert sorted(rendering.evaluate("{{ __pbx_left_mailboxes }}", described)) == ["6001", "6002", "6004"]


def test_mailbox_that_is_disabled_is_archived(known, kept):
    one = phones("6001", "6002", "6003", "6004", without_mailbox=("6002",))
    described = {**known("pbx", pbx_phones=one), "__pbx_kept": {"stdout_lines": kept}}
    assert rendering.evaluate("{{ __pbx_left_mailboxes }}", described) == ["6002"]
    assert rendering.evaluate("{{ __pbx_commands }}", described) == []


@pytest.mark.parametrize(
    ("role", "description", "unused"),
    [
        ("pbx", {"pbx_phones": phones("6001", "6002", without_mailbox=("6002",))}, ["mailbox_6002", "phone_6009"]),
        ("pbx", {"pbx_phones": []}, ["mailbox_6001", "mailbox_6002", "phone_6001", "phone_6002", "phone_6009"]),
        ("asterisk", {"asterisk_ami_users": [{"name": "a"}], "asterisk_ari_users": []}, ["ami_ops", "ari_a"]),
        ("asterisk", {"asterisk_ami_users": [], "asterisk_ari_users": [{"name": "a"}]}, ["ami_a", "ami_ops"]),
    ],
)
def test_unused_secrets_of_the_host_are_found(known, tmp_path, role, description, unused):
    for host in (rendering.HOST, "another"):
        (tmp_path / host / "archive-20260101T000000Z").mkdir(parents=True)
        numbers = ("phone_6001", "phone_6002", "phone_6009", "mailbox_6001", "mailbox_6002")
        for name in (*numbers, "ami_a", "ami_ops", "ari_a", "ari_verify", "database_password"):
            (tmp_path / host / name).write_text("x\n")
    expression = f"{{{{ __{role}_unused_secrets }}}}"
    assert sorted(rendering.evaluate(expression, known(role, **description))) == unused


def test_sessions_of_removed_ami_users_are_found(known):
    users = [{"name": "a-name-of-fifteen-and-more"}]
    described = known("asterisk", asterisk_ami_users=users, asterisk_group_members=["ana"])
    described["__asterisk_access"] = {"stdout": SESSIONS, "stdout_lines": SESSIONS.splitlines()}
    assert rendering.evaluate("{{ __asterisk_sessions }}", described) == ["33"]
    assert rendering.evaluate("{{ __asterisk_other_members }}", described) == ["ben"]
    described["asterisk_ami_users"] = []
    assert rendering.evaluate("{{ __asterisk_sessions }}", described) == ["32", "33"]
    described["labredes_events_enabled"] = "no"
    assert rendering.evaluate("{{ __asterisk_sessions }}", described) == ["31", "32", "33"]
