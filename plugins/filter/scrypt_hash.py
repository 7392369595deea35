# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter scrypt_hash: passwords as the service of apir_py keeps them, the same in every run."""

from __future__ import annotations

import hashlib
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

DOCUMENTATION = r"""
name: scrypt_hash
short_description: The hash of a password, as C(apir-py password) makes one
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - A run must not change what it finds unchanged, so the salt is not random but a digest of O(seed). It must not come
    from the password itself, since whoever has the hash could try passwords against that digest, which is fast.
options:
  _input: {description: The password., type: str, required: true}
  seed: {description: "A text that no other user of any host has, such as a random secret and a name.", type: str}
"""

EXAMPLES = """
- name: Show the hash of a password
  ansible.builtin.debug:
    msg: "{{ password | labredes.pbx.scrypt_hash(lookup('labredes.pbx.secret', 'ami_events') ~ name) }}"
"""
RETURN = '_value: {description: "The hash, as V(scrypt$16384$8$5$salt$hash).", type: str}'


def scrypt_hash(password, seed):
    """The hash of a password, with a salt from a text."""
    path = Path(__file__).resolve().parents[2] / "apir_py/src/apir_py/passwords.py"
    # Not by runpy: in an installed collection it asks Ansible's importer, which refuses a file.
    loader = SourceFileLoader("labredes_passwords", str(path))
    module = ModuleType(loader.name)
    loader.exec_module(module)
    return module.hash_password(password, hashlib.sha256(f"salt of {seed}".encode()).digest()[:16])


class FilterModule:
    """The filter, by name."""

    def filters(self):
        """The name that templates use."""
        return {"scrypt_hash": scrypt_hash}
