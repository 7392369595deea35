"""Passwords as scrypt hashes, with the standard library alone: `scrypt$N$r$p$salt$hash`, the last two in base64."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

COST, BLOCK, LANES = 1 << 14, 8, 5
"""N, r and p: 16 MiB of memory, and a fifth of a second on a small machine, for each attempt."""
LARGEST_COST, LARGEST_BLOCK, LARGEST_LANES = 1 << 16, 8, 16
"""What a hash may ask for: 64 MiB and some seconds."""


def hash_password(password: str, salt: bytes | None = None) -> str:
    """A new hash, with 16 random bytes of salt unless there are others."""
    salt = salt or os.urandom(16)
    return f"scrypt${COST}${BLOCK}${LANES}${_text(salt)}${_text(_scrypt(password, salt, COST, BLOCK, LANES))}"


def check_hash(stored: str) -> None:
    """Refuse, with ValueError, what `hash_password` cannot have made."""
    _parse(stored)


def verify(password: str, stored: str) -> bool:
    """Whether the password belongs to the hash; ValueError if that is none."""
    salt, known, cost, block, lanes = _parse(stored)
    return hmac.compare_digest(_scrypt(password, salt, cost, block, lanes), known)


def _parse(stored: str) -> tuple[bytes, bytes, int, int, int]:
    """Salt, hash, N, r and p."""
    try:
        name, *numbers, salt, known = stored.split("$")
        cost, block, lanes = map(int, numbers)
        parsed = base64.b64decode(salt, validate=True), base64.b64decode(known, validate=True), cost, block, lanes
    except ValueError:
        name = ""
    possible = name == "scrypt" and len(parsed[1]) == 32 and 1 <= block <= LARGEST_BLOCK and 1 <= lanes <= LARGEST_LANES
    if not possible or not 1 < cost <= LARGEST_COST or cost & (cost - 1):
        raise ValueError("not a hash that `apir-py password` makes")
    return parsed


def _scrypt(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    letters = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(letters, salt=salt, n=cost, r=block, p=lanes, maxmem=256 * cost * block + (1 << 20), dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


NOBODY = f"scrypt${COST}${BLOCK}${LANES}${_text(bytes(16))}${_text(bytes(32))}"
"""A hash that belongs to no password, to be checked for a user that does not exist: the answer takes as long."""
