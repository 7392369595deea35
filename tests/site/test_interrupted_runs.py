"""A run killed between writing a file and reloading it is completed by the next one; `make soak` kills at 50 points."""

from __future__ import annotations

import pytest
from interrupted import OTHER, changes, in_force, killed

# The step after which the run is killed, its tag, the variables with another value, and what does not run yet then.
POINTS = [
    ("Write the configuration files", "asterisk", ["labredes_rtp_end"], {"rtp.conf"}),
    (
        "Write the configuration files of the exchange",
        "pbx",
        ["pbx_queues", "pbx_user_agent"],
        {"queues.conf", "extensions.conf", "pjsip.conf"},
    ),
    (
        "Write pg_hba.conf and the server's settings",
        "database",
        ["postgresql_extra_hba_rules", "postgresql_listen_addresses"],
        {"pg_hba.conf", "postgresql.conf"},
    ),
    ("Write the files", "harden", ["fail2ban_failures"], {"fail2ban"}),
]


@pytest.fixture(autouse=True, scope="module")
def former_values(lab_directory):
    """The host has the values of its inventory again after the tests."""
    yield
    changes(lab_directory)


@pytest.mark.parametrize(("step", "tag", "names", "pending"), POINTS, ids=[point[0] for point in POINTS])
def test_next_run_completes_a_killed_one(lab_directory, on_lab, step, tag, names, pending):
    other = {name: OTHER[name] for name in names}
    assert not any(in_force(on_lab)[name] for name in pending)
    killed(lab_directory, f"{step}#1:after", f"--tags={tag}", **other)
    assert not any(in_force(on_lab)[name] for name in pending), "the kill came too late to test anything"
    assert changes(lab_directory, f"--tags={tag}", **other) > 0
    now = in_force(on_lab)
    assert all(now[name] for name in pending), now
    assert changes(lab_directory, f"--tags={tag}", **other) == 0
