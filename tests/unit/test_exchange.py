"""A description that contradicts itself, or would break Asterisk's files, is told in one sentence a fault."""

from __future__ import annotations

import pytest
import rendering
from ansible_collections.labredes.pbx.plugins.filter.exchange import exchange_problems, unknown_variables

PHONES = [{"number": "6001", "name": "Ana"}, {"number": "6002", "name": "José Ortega y Gasset"}]
ROOMS = ["pbx", "sshd", "asterisk", "asterisk_package"]


def unknown(*names):
    """What is said about variables' names."""
    return unknown_variables(names, ROOMS, rendering.ROLES)


def test_a_good_description_is_let_through():
    assert exchange_problems(PHONES, ["6000"]) == []


def test_a_number_is_used_once():
    assert exchange_problems([*PHONES, {"number": "6001", "name": "Eva"}], ["6002"]) == [
        "pbx_phones[2]: 6001 is taken by pbx_phones[0]; give it another number.",
        "pbx_conferences[0]: 6002 is taken by pbx_phones[1]; give it another number."]


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
    assert unknown("pbx_phone", "sshd_prot") == [
        "pbx_phone is no variable of this collection; did you mean pbx_phones?",
        "sshd_prot is no variable of this collection; did you mean sshd_port?"]
    assert unknown("pbx_xyzzy_plugh_quux") == ["pbx_xyzzy_plugh_quux is no variable of this collection."]


def test_variables_of_others_are_none_of_its_business():
    assert unknown("pbx_phones", "asterisk_package_release", "my_pbx", "ansible_host", "__pbx_files", "pbx") == []
