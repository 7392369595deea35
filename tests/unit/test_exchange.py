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


def problems(phones, conferences=(), queues=(), call_centres=(), codes=None, webrtc=False):
    """The problems of a description, with the role's nested defaults filled in."""
    queues = [{**NESTED["__pbx_queue_defaults"], **queue} for queue in queues]
    call_centres = [{**NESTED["__pbx_call_centre_defaults"], **centre} for centre in call_centres]
    phones = [{**NESTED["__pbx_phone_defaults"], **phone} for phone in phones]
    return exchange.exchange_problems(phones, conferences, queues, call_centres, [], codes or {}, 15, webrtc)


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
    queues = [{"name": "Q", "number": "8001", "timeout": 15}, {"name": "q", "number": "8002", "max_wait": 10}]
    assert problems(AGENTS, queues=queues) == [
        "pbx_queues[0] (Q): timeout 15 must be longer than the 15 s of pbx_agent_seconds.",
        "pbx_queues[1] (q): the name is taken by pbx_queues[0] (Q); choose another.",
        "pbx_queues[1] (q): max_wait 10 is shorter than timeout 20; make it longer.",
    ]


def test_call_centre_departments_must_be_phones():
    centres = [{"number": "11888", "departments": {"1": "6001", 2: 6002, "3": "6000"}}]
    assert problems(PHONES, ["6000"], call_centres=centres) == [
        "pbx_call_centres[0] (11888): department 3 is 6000, which is not a phone; add it to pbx_phones."
    ]


@pytest.mark.parametrize(("webrtc", "count"), [(True, 1), ("yes", 1), ("no", 0)])
def test_webrtc_needs_a_way_for_browsers(webrtc, count):
    phones = [{**PHONES[0], "webrtc": webrtc}]
    problem = (
        "pbx_phones[0] (6001): has webrtc, but labredes_events_enabled is false and labredes_sip_transports has no "
        "wss; change one of them or remove webrtc."
    )
    assert problems(phones) == [problem] * count
    assert problems(phones, webrtc=True) == []


@pytest.mark.parametrize("mailbox", [False, "false", "no", "0"])
def test_pin_without_mailbox_is_refused(mailbox):
    (problem,) = problems([{**PHONES[0], "pin": "4711", "mailbox": mailbox}])
    assert problem == "pbx_phones[0] (6001): has a pin but no mailbox; remove one of the two."
    assert problems([{**PHONES[0], "pin": "4711", "mailbox": "true"}]) == []
