"""Comparison of the controller's secrets with the record of digests that a host keeps."""

from __future__ import annotations

import json

import pytest
from ansible_collections.labredes.pbx.plugins.filter.secret_record import compare_secrets, secret_record

STEPS = {"phone_6001": ["pbx"], "database_password": ["database", "asterisk"]}
PROVISIONED = {"rc": 0, "stdout": "/etc/asterisk/pjsip_transports.conf\n"}  # a host without a record
NEW = {"rc": 0, "stdout": ""}


def found(kept=True, own=(), **values):
    """What the lookup finds on a controller: an empty value is a missing file."""
    return [
        {
            "name": name,
            "file": name,
            "value": value,
            "set": name in own,
            "kept": kept,
            "error": "",
            "steps": STEPS.get(name, []),
        }
        for name, value in values.items()
    ]


def reading(record):
    """The result of reading a record."""
    return {"rc": 0, "stdout": json.dumps(record)}


@pytest.fixture(name="read")
def fixture_read():
    """The result of reading the record of a host that uses two secrets."""
    return reading(secret_record(found(phone_6001="a", database_password="b"), NEW))


def compared(secrets, read, rotate=()):
    """The names that are lacking, those to be replaced, and whether the record changes."""
    result = compare_secrets(secrets, read, rotate)
    assert result["errors"] == []
    return result["lacking"], result["replaced"], result["changed"]


def test_same_secrets_change_nothing(read):
    assert compared(found(phone_6001="a", database_password="b"), read) == ([], [], False)


def test_record_has_no_secret_and_a_salt_of_its_own():
    secrets = found(phone_6001="kR7vTz0qWm2xBn5c")
    first, second = (secret_record(secrets, NEW) for _host in range(2))
    assert "kR7vTz0qWm2xBn5c" not in json.dumps(first)
    assert first["digests"] != second["digests"]
    assert secret_record(secrets, reading(first)) == first


def test_same_value_of_two_names_has_two_digests():
    digests = secret_record(found(phone_6001="a", phone_6002="a"), NEW)["digests"]
    assert digests["phone_6001"] != digests["phone_6002"]


@pytest.mark.parametrize("value", ["", "other"])
def test_missing_or_other_generated_secret_is_lacking(read, value):
    assert compared(found(phone_6001=value, database_password="b"), read)[0] == ["phone_6001"]


def test_new_secret_is_accepted(read):
    assert compared(found(phone_6001="a", database_password="b", phone_6002=""), read) == ([], [], True)


def test_secret_that_is_no_longer_needed_leaves_the_record(read):
    assert compared(found(phone_6001="a"), read) == ([], [], True)
    assert list(secret_record(found(phone_6001="a"), read)["digests"]) == ["phone_6001"]


def test_administrators_new_value_is_accepted(read):
    assert compared(found(phone_6001="x", database_password="b", own=["phone_6001"]), read) == ([], [], True)


def test_administrators_value_that_is_shared_counts_as_replaced(read):
    changed = found(phone_6001="a", database_password="x", own=["database_password"])
    assert compared(changed, read) == ([], ["database_password"], True)
    same = found(phone_6001="a", database_password="b", own=["database_password"])
    assert compared(same, read) == ([], [], False)


def test_value_that_is_no_longer_set_is_lacking():
    read = reading(secret_record(found(phone_6001="a", own=["phone_6001"]), NEW))
    assert compared(found(phone_6001=""), read)[0] == ["phone_6001"]


@pytest.mark.parametrize("rotate", ["phone_6001", ["phone_6001"], "phone_6002, phone_6001"])
def test_rotated_secret_is_replaced_and_not_lacking(read, rotate):
    assert compared(found(phone_6001="", database_password="b"), read, rotate) == ([], ["phone_6001"], True)
    assert compared(found(phone_6001="a", database_password=""), read, rotate)[0] == ["database_password"]


def test_all_replaces_every_generated_secret(read):
    secrets = found(phone_6001="", database_password="b", own=["database_password"])
    assert compared(secrets, read, "all")[:2] == ([], ["phone_6001"])
    assert compare_secrets(secrets, read, "all")["own"] == ["database_password"]


def test_interrupted_rotation_is_resumed(read):
    pending = reading(secret_record(found(phone_6001="a", database_password="b"), read, ["phone_6001"]))
    assert compared(found(phone_6001="a", database_password="b"), pending) == ([], ["phone_6001"], True)
    assert compare_secrets(found(phone_6001="a", database_password="b"), pending)["steps"] == ["pbx"]


def test_provisioned_host_without_record_needs_a_directory():
    assert compared(found(phone_6001="a", kept=True), PROVISIONED) == ([], [], True)
    assert compared(found(phone_6001="", kept=True), PROVISIONED) == ([], [], True)
    assert compared(found(phone_6001="", kept=False), PROVISIONED)[0] == ["phone_6001"]
    assert compared(found(phone_6001="a", kept=False, own=["phone_6001"]), PROVISIONED) == ([], [], True)


def test_new_host_accepts_everything():
    assert compared(found(phone_6001="", kept=False), NEW) == ([], [], True)


def test_host_without_secrets_has_no_change():
    assert compared([], NEW) == compared([], {}) == ([], [], False)


@pytest.mark.parametrize("text", ["{", '{"salt": "a"', "{}", '{"salt": "a"}'])
def test_damaged_record_is_an_error(text):
    assert "damaged" in compare_secrets(found(phone_6001="a"), {"rc": 0, "stdout": text})["errors"][0]
    assert "damaged" in compare_secrets(found(phone_6001="a"), {"rc": 1, "stdout": ""})["errors"][0]


def test_unusable_secret_is_an_error(read):
    weak = {"name": "phone_6002", "value": "", "error": "pbx1: weak.", "steps": ["pbx"]}  # all that the lookup gives
    assert compare_secrets([*found(phone_6001="a"), weak], read)["errors"] == ["pbx1: weak."]


def test_record_is_read_after_a_line_of_sudo(read):
    """As sudo prints it where the name of the host cannot be resolved; raw returns both outputs in one."""
    noisy = {
        **read,
        "stdout": "sudo: unable to resolve host pbx1.example.org: Name or service not known\r\n" + read["stdout"],
    }
    assert compare_secrets(found(phone_6001="other", database_password="b"), noisy)["lacking"] == ["phone_6001"]
    assert not compare_secrets(found(phone_6001="a", database_password="b"), noisy)["changed"]
