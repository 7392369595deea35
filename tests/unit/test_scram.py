"""Filter scram: which password PostgreSQL keeps of a user."""

from __future__ import annotations

import pytest
from ansible_collections.labredes.pbx.plugins.filter.scram import scram

# The example of RFC 7677, as PostgreSQL would keep it.
SALT, STORED = "W22ZaJ0SNY7soEsUEjb6gQ==", "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
KEPT = f"SCRAM-SHA-256$4096:{SALT}${STORED}:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="


@pytest.mark.parametrize(
    ("kept", "password", "right"),
    [
        (KEPT, "pencil", True),
        (KEPT, "pencil2", False),
        (KEPT.replace("W22Z", "X22Z"), "pencil", False),
        (KEPT.replace("4096", "4097"), "pencil", False),
        ("md5" + 32 * "0", "pencil", False),
        ("", "pencil", False),
    ],
)
def test_password_is_known_by_its_keys(kept, password, right):
    assert scram(kept, password) == right
