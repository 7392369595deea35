# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter scram: own code, since a module logs in for each user of PostgreSQL, in every run, to compare a password."""

from __future__ import annotations

DOCUMENTATION = """
name: scram
short_description: Whether PostgreSQL keeps this password of a user
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description: By SCRAM-SHA-256 (RFC 5802); a password that is kept in another form is none.
options:
  _input: {description: "C(rolpassword) of C(pg_authid).", type: str, required: true}
  password: {description: The password., type: str, required: true}
"""

EXAMPLES = """
right: "{{ rolpassword | labredes.pbx.scram(password) }}"
"""

RETURN = "_value: {description: Whether it is this password., type: bool}"

import base64
import hashlib
import hmac
import re


def scram(kept: str, password: str) -> bool:
    """Whether what PostgreSQL keeps was made of this password, which is of ASCII characters."""
    found = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([\w+/=]+)\$([\w+/=]+):[\w+/=]+", kept)
    if not found:
        return False
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(found[2]), int(found[1]))
    client = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return hmac.compare_digest(base64.b64decode(found[3]), client)


class FilterModule:
    """The filter plugin."""

    def filters(self):
        """Its filter."""
        return {"scram": scram}
