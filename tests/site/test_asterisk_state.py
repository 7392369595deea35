"""A green run means that Asterisk runs with the files of the run, whatever state it was in before."""

from __future__ import annotations

import json

import pytest
from interrupted import changes
from playbook import play


@pytest.fixture(autouse=True)
def former_files(lab_directory):
    """The exchange has the files of its inventory again after each test."""
    yield
    changes(lab_directory, "--tags=asterisk,pbx")


def test_file_that_asterisk_refuses_fails_each_run(lab_directory, on_lab):
    """Asterisk keeps the former phones and answers that it has reloaded successfully."""
    bad = {"labredes_validated": True, "pbx_codecs": ["nonsense"]}
    for _run in range(2):
        done = play(lab_directory, "-e", json.dumps(bad), playbook="playbooks/pbx.yml")
        assert done.returncode and "Could not create an object of type 'endpoint'" in done.stdout, done.stdout[-3000:]
    assert "ulaw" in on_lab("asterisk -rx 'pjsip show endpoint 6001'")


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_missing_log_directory_is_made_again(lab_directory, on_lab, state):
    on_lab(("systemctl stop asterisk; " if state == "stopped" else "") + "rm -r /var/log/asterisk")
    assert changes(lab_directory, "--tags=asterisk,pbx") == 1
    assert "fully booted" in on_lab("test -s /var/log/asterisk/security; asterisk -rx 'core waitfullybooted'")
    assert changes(lab_directory, "--tags=asterisk,pbx") == 0
