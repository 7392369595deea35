"""A description that contradicts itself, or would break Asterisk's files, is told in one sentence a fault."""

from __future__ import annotations

import pytest
import rendering
from ansible_collections.labredes.pbx.plugins.filter.exchange import exchange_problems, unknown_variables

PHONES = [{"number": "6001", "name": "Ana"}, {"number": "6002", "name": "José Ortega y Gasset"}]
RENAMED = rendering.load(rendering.ROLES / "labredes/vars/renamed.yml")["__labredes_renamed"]


def unknown(*names):
    """What is said about variables' names."""
    return unknown_variables(names, rendering.ROLES, RENAMED)


def test_a_good_description_is_let_through():
    assert exchange_problems(PHONES, ["6000"]) == []


def test_a_number_is_used_once():
    assert exchange_problems([*PHONES, {"number": "6001", "name": "Eva"}], ["6002"]) == [
        "pbx_phones[2]: 6001 is taken by pbx_phones[0]; give it another number.",
        "pbx_conferences[0]: 6002 is taken by pbx_phones[1]; give it another number.",
    ]


@pytest.mark.parametrize("number", ["6", "60012345678", "60O1", "_X.", "*21", "", "6001&PJSIP/6002", "6001\n", "٦٠٠١"])
def test_a_number_that_cannot_be_dialled_is_refused(number):
    told = exchange_problems([{"number": number, "name": "Ana"}])
    assert len(told) == 1
    assert told[0] == f"pbx_phones[0]: {number!r} is no number that can be dialled; give 2 to 10 digits, in quotes."


@pytest.mark.parametrize("broken", ['"', ";", "\n", "${EXTEN}", "\\", "<", "]", "\x00"])
def test_a_name_that_would_break_a_file_is_refused(broken):
    told = exchange_problems([{"number": "6001", "name": f"An{broken}a"}])
    assert len(told) == 1 and told[0].startswith("pbx_phones[0] (6001): the name 'An")
    assert "which would break Asterisk's files; leave it out." in told[0]


@pytest.mark.parametrize("name", ["x" * 80, "ñ" * 40, " Ana", "Ana "])
def test_a_name_that_a_record_cannot_hold_is_refused(name):
    (told,) = exchange_problems([{"number": "6001", "name": name}])
    assert "is longer than 79 bytes or begins or ends with a space; trim it." in told


def test_names_people_have_are_let_through():
    names = ["Ñoño d'Émile", "Dr. Ana-María (ventas), 2º", "李雷", "x" * 79]
    assert exchange_problems([{"number": str(6001 + n), "name": name} for n, name in enumerate(names)]) == []


def test_a_misspelled_variable_is_told_with_the_right_one():
    assert unknown("pbx_phone", "sshd_alow_users", "sshd_port") == [
        "pbx_phone is no variable of this collection; did you mean pbx_phones?",
        "sshd_alow_users is no variable of this collection; did you mean sshd_allow_users?",
        "sshd_port is no longer a variable; use labredes_ssh_port.",
    ]
    assert unknown("pbx_xyzzy_plugh_quux") == ["pbx_xyzzy_plugh_quux is no variable of this collection."]


def test_variables_of_others_are_none_of_its_business():
    assert unknown("postgresql_version", "sshd_skip_defaults", "firewall_allowed_tcp_ports") == []
    assert unknown("pbx_phones", "asterisk_package_release", "my_pbx", "ansible_host", "__pbx_files", "pbx") == []


AGENTS = [{**PHONES[0], "agent": "Ana"}, PHONES[1]]


def test_a_number_is_used_once_whatever_it_is_of():
    queue = {"name": "Q", "number": "6000", "agents": []}
    centre = {"number": "6002", "departments": {"1": "6001"}}
    assert exchange_problems(PHONES, ["6000"], [queue], [centre], codes={"voicemail": "6001"}) == [
        "pbx_queues[0]: 6000 is taken by pbx_conferences[0]; give it another number.",
        "pbx_call_centres[0]: 6002 is taken by pbx_phones[1]; give it another number.",
        "pbx_codes.voicemail: 6001 is taken by pbx_phones[0]; give it another number.",
    ]


def test_a_queue_has_agents_who_are_some():
    queues = [{"name": "Q", "number": "8001", "agents": ["6001", "6001", "6002", 6009]}]
    assert exchange_problems(AGENTS, queues=queues) == [
        "pbx_queues[0] (Q): the agent 6001 is listed twice; take one out.",
        "pbx_queues[0] (Q): phone 6002 has no agent's name; give it agent: in pbx_phones or take it out.",
        "pbx_queues[0] (Q): the agent 6009 is no phone; add it to pbx_phones or take it out.",
    ]


def test_a_queues_times_can_work_and_its_name_is_its_own():
    queues = [
        {"name": "Q", "number": "8001", "timeout": 15},
        {"name": "q", "number": "8002", "max_wait": 10},
        {"name": "General", "number": "8003"},
        {"name": "a b", "number": "8004"},
    ]
    assert exchange_problems(AGENTS, queues=queues, agent_seconds=15) == [
        "pbx_queues[0] (Q): timeout 15 must be longer than the 15 s of pbx_agent_seconds.",
        "pbx_queues[1] (q): the name is taken by pbx_queues[0] (Q); give it another.",
        "pbx_queues[1] (q): max_wait 10 is shorter than timeout 20; nobody could answer in time.",
        "pbx_queues[2] (General): the name is taken by Asterisk; give it another.",
        "pbx_queues[3] (a b): the name 'a b' must be 1 to 40 letters, digits, _ and - alone; choose another.",
    ]


def test_a_call_centre_leads_to_phones():
    centres = [
        {
            "number": "11888",
            "departments": {"1": "6001", 2: 6002, "*": "6001", "12345": "6001", "3": "6000"},
            "tries": 0,
        },
        {"number": "11999", "departments": {}},
    ]
    assert exchange_problems(PHONES, ["6000"], call_centres=centres) == [
        "pbx_call_centres[0] (11888): tries 0 lets nobody choose; give at least 1.",
        "pbx_call_centres[0] (11888): '*' is no choice that can be dialled; give 1 to 4 digits, in quotes.",
        "pbx_call_centres[0] (11888): '12345' is no choice that can be dialled; give 1 to 4 digits, in quotes.",
        "pbx_call_centres[0] (11888): department 3 leads to 6000, which is no phone; add it to pbx_phones.",
        "pbx_call_centres[1] (11999): has no departments; give at least one.",
    ]


@pytest.mark.parametrize("code", ["*", "21*", "**21", "a1", "*21\n", ""])
def test_a_code_that_cannot_be_dialled_is_refused(code):
    told = exchange_problems([], codes={"forward": code})
    assert told == (
        [
            f"pbx_codes.forward: {code!r} is no code that can be dialled; give 2 to 10 digits, in quotes, "
            "with * or # before them if you like."
        ]
        if code
        else []
    )


def test_a_code_of_no_service_is_told():
    assert exchange_problems([], codes={"voicemial": "6500"}) == [
        "pbx_codes.voicemial is no service; the services are voicemail, agent_login, queue_join, queue_leave, forward, unforward."
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("email", "ana"),
        ("email", "ana@x,y"),
        ("pager", "a|b@example.com"),
        ("email", "ana@example.com\n"),
        ("agent", "Ana,0"),
        ("agent", "Ana;"),
        ("pin", "12"),
        ("pin", "12a4"),
        ("pin", "12345678901"),
    ],
)
def test_what_would_break_a_mailbox_or_an_agent_is_refused(key, value):
    (told,) = exchange_problems([{**PHONES[0], key: value}])
    assert told.startswith(f"pbx_phones[0] (6001): the {key} ")
