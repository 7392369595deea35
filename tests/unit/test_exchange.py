"""Filters exchange_problems and unknown_variables: one sentence for each problem of a description."""

from __future__ import annotations

import pytest
import rendering
from ansible_collections.labredes.pbx.plugins.filter import exchange
from ansible_collections.labredes.pbx.plugins.filter.variable_names import unknown_variables

PHONES = [{"number": "6001", "name": "Ana"}, {"number": "6002", "name": "José Ortega y Gasset"}]
AGENTS = [{**PHONES[0], "agent": "Ana"}, PHONES[1]]
RENAMED = rendering.load(rendering.ROLES / "labredes/vars/renamed.yml")["__labredes_renamed"]
NESTED = rendering.load(rendering.ROLES / "pbx/vars/main.yml")


def problems(phones, conferences=(), queues=(), call_centres=(), codes=None):
    """The problems of a description, with the role's nested defaults filled in."""
    queues = [{**NESTED["__pbx_queue_defaults"], **queue} for queue in queues]
    call_centres = [{**NESTED["__pbx_call_centre_defaults"], **centre} for centre in call_centres]
    return exchange.exchange_problems(phones, conferences, queues, call_centres, [], codes or {}, 15)


def unknown(*names):
    """The problems of variable names."""
    return unknown_variables(names, rendering.ROLES, RENAMED)


def test_consistent_description_has_no_problems():
    assert problems(PHONES, ["6000"]) == []


def test_number_is_used_once():
    assert problems([*PHONES, {"number": "6001", "name": "Eva"}], ["6002"]) == [
        "pbx_phones[2]: 6001 is taken by pbx_phones[0]; give it another number.",
        "pbx_conferences[0]: 6002 is taken by pbx_phones[1]; give it another number.",
    ]


@pytest.mark.parametrize("number", ["6", "60012345678", "60O1", "_X.", "*21", "", "6001&PJSIP/6002", "6001\n", "٦٠٠١"])
def test_undialable_number_is_refused(number):
    assert problems([{"number": number, "name": "Ana"}]) == [
        f"pbx_phones[0]: {number!r} cannot be dialled; give 2 to 10 digits, in quotes."
    ]


@pytest.mark.parametrize("special", ['"' * 6, "\n", "${EXTEN}", "\\", "<", "]", "\x00"])
def test_special_character_in_name_is_refused(special):
    (problem,) = problems([{"number": "6001", "name": f"An{special}a"}])
    assert problem.startswith("pbx_phones[0] (6001): the name 'An")
    assert problem.endswith(", which would break Asterisk's files; leave it out.")


@pytest.mark.parametrize("name", ["x" * 80, "ñ" * 40, " Ana", "Ana ", ""])
def test_name_that_a_record_cannot_hold_is_refused(name):
    (problem,) = problems([{"number": "6001", "name": name}])
    assert problem.endswith("must have 1 to 79 bytes and no space at its beginning or end; correct it.")


def test_ordinary_names_are_accepted():
    names = ["Ñoño d'Émile", "Dr. Ana-María (ventas), 2º", "李雷", "x" * 79, 'Ana "Nina" ; (x & y) | z)']
    assert problems([{"number": str(6001 + n), "name": name} for n, name in enumerate(names)]) == []


def test_misspelt_and_renamed_variables_are_refused():
    assert unknown("pbx_phone", "sshd_alow_users", "system_timezoen", "sshd_port") == [
        "pbx_phone is not a variable of this collection; did you mean pbx_phones?",
        "sshd_alow_users is not a variable of this collection; did you mean sshd_allow_users?",
        "sshd_port is no longer a variable; use labredes_ssh_port.",
        "system_timezoen is not a variable of this collection; did you mean system_timezone?",
    ]
    assert unknown("pbx_xyzzy_plugh_quux") == ["pbx_xyzzy_plugh_quux is not a variable of this collection."]


def test_variables_of_other_collections_are_accepted():
    assert unknown("postgresql_version", "sshd_skip_defaults", "firewall_allowed_tcp_ports") == []
    assert unknown("pbx_phones", "asterisk_package_release", "my_pbx", "ansible_host", "__pbx_phones", "pbx") == []


def test_number_is_used_once_across_all_lists():
    queue = {"name": "Q", "number": "6000"}
    centre = {"number": "6002", "departments": {"1": "6001"}}
    assert problems(PHONES, ["6000"], [queue], [centre], codes={"voicemail": "6001"}) == [
        "pbx_queues[0]: 6000 is taken by pbx_conferences[0]; give it another number.",
        "pbx_call_centres[0]: 6002 is taken by pbx_phones[1]; give it another number.",
        "pbx_codes.voicemail: 6001 is taken by pbx_phones[0]; give it another number.",
    ]


def test_queue_agents_must_be_phones_with_agent_names():
    queues = [{"name": "Q", "number": "8001", "agents": ["6001", "6001", "6002", 6009]}]
    assert problems(AGENTS, queues=queues) == [
        "pbx_queues[0] (Q): agent 6001 is listed twice; remove one.",
        "pbx_queues[0] (Q): phone 6002 has no agent name; give it agent: in pbx_phones or remove it.",
        "pbx_queues[0] (Q): agent 6009 is not a phone; add it to pbx_phones or remove it.",
    ]


def test_queue_names_are_unique_and_times_possible():
    queues = [
        {"name": "Q", "number": "8001", "timeout": 15},
        {"name": "q", "number": "8002", "max_wait": 10},
        {"name": "General", "number": "8003"},
        {"name": "a b", "number": "8004"},
    ]
    assert problems(AGENTS, queues=queues) == [
        "pbx_queues[0] (Q): timeout 15 must be longer than the 15 s of pbx_agent_seconds.",
        "pbx_queues[1] (q): the name is taken by pbx_queues[0] (Q); choose another.",
        "pbx_queues[1] (q): max_wait 10 is shorter than timeout 20; make it longer.",
        "pbx_queues[2] (General): the name is taken by Asterisk; choose another.",
        "pbx_queues[3] (a b): the name 'a b' is not valid; use 1 to 40 letters, digits, _ and -.",
    ]


def test_call_centre_departments_must_be_phones():
    departments = {"1": "6001", 2: 6002, "*": "6001", "12345": "6001", "3": "6000"}
    centres = [{"number": "11888", "departments": departments, "tries": 0}, {"number": "11999", "departments": {}}]
    assert problems(PHONES, ["6000"], call_centres=centres) == [
        "pbx_call_centres[0] (11888): tries 0 is too few; give at least 1.",
        "pbx_call_centres[0] (11888): '*' cannot be dialled; give 1 to 4 digits, in quotes.",
        "pbx_call_centres[0] (11888): '12345' cannot be dialled; give 1 to 4 digits, in quotes.",
        "pbx_call_centres[0] (11888): department 3 is 6000, which is not a phone; add it to pbx_phones.",
        "pbx_call_centres[1] (11999): has no departments; give at least one.",
    ]


@pytest.mark.parametrize("code", ["*", "21*", "**21", "a1", "*21\n"])
def test_undialable_code_is_refused(code):
    cure = "give 2 to 10 digits, in quotes, after an optional * or #."
    assert problems([], codes={"forward": code}) == [f"pbx_codes.forward: {code!r} cannot be dialled; {cure}"]


@pytest.mark.parametrize("mailbox", [False, "false", "no", "0"])
def test_pin_without_mailbox_is_refused(mailbox):
    (problem,) = problems([{**PHONES[0], "pin": "4711", "mailbox": mailbox}])
    assert problem == "pbx_phones[0] (6001): has a pin but no mailbox; remove one of the two."
    assert problems([{**PHONES[0], "pin": "4711", "mailbox": "true"}]) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("email", "ana"),
        ("email", "ana@x,y"),
        ("pager", "a|b@example.com"),
        ("email", "ana@example.com\n"),
        ("agent", "Ana|0"),
        ("agent", "Ana\n"),
        ("pin", "12"),
        ("pin", "12a4"),
        ("pin", "12345678901"),
        ("pin", "4711\n"),
    ],
)
def test_invalid_text_of_a_phone_is_refused(key, value):
    (problem,) = problems([{**PHONES[0], key: value}])
    assert problem.startswith(f"pbx_phones[0] (6001): the {key} ")
