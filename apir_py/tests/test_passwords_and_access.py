"""Hashes of passwords, tokens and the limit on attempts."""

from __future__ import annotations

import pytest
from apir_py.access import Limit, Tokens, network_key
from apir_py.passwords import check_hash, hash_password, verify

from apir_py import access, passwords


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; `clock.append(seconds)` moves it."""
    moves: list[float] = [1000]
    monkeypatch.setattr(access.time, "monotonic", lambda: sum(moves))
    return moves


@pytest.fixture
def cheap(monkeypatch):
    """New hashes cost no time."""
    monkeypatch.setattr(passwords, "COST", 2)


@pytest.mark.parametrize("password", ["correct horse", "contraseña €", "\udcff"])
def test_password_matches_its_hash_alone(cheap, password):
    stored = hash_password(password)
    assert password not in stored
    assert verify(password, stored)
    assert not verify(password + " ", stored)
    assert not verify("", stored)


def test_hash_has_a_salt_of_its_own(cheap):
    assert hash_password("x") != hash_password("x")


def test_hash_costs_16_mebibytes_five_times():
    assert hash_password("x").startswith("scrypt$16384$8$5$")


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "secret",
        "$6$rounds=5000$salt$hash",
        "scrypt$16384$8$5$AAAA$AAAA",
        "scrypt$16384$8$5$!$" + "A" * 43 + "=",
        "scrypt$16383$8$5$AAAA$" + "A" * 43 + "=",
        "scrypt$1073741824$8$5$AAAA$" + "A" * 43 + "=",
        "scrypt$16384$8$-1$AAAA$" + "A" * 43 + "=",
        "bcrypt$16384$8$5$AAAA$" + "A" * 43 + "=",
    ],
)
def test_what_is_no_hash_is_refused(stored):
    with pytest.raises(ValueError, match="not a hash"):
        check_hash(stored)
    with pytest.raises(ValueError, match="not a hash"):
        verify("", stored)


def test_token_ends_after_its_lifetime(clock):
    tokens: Tokens[str] = Tokens(30, 10)
    token = tokens.issue("ana")
    clock.append(29)
    assert tokens.find(token) == "ana"
    clock.append(1)
    assert tokens.find(token) is None


def test_token_is_taken_once(clock):
    tokens: Tokens[str] = Tokens(30, 10)
    token = tokens.issue("ana")
    assert tokens.take(token) == "ana"
    assert tokens.take(token) is None
    assert tokens.take("other") is None


def test_tokens_are_bounded_and_forgotten(clock):
    tokens: Tokens[int] = Tokens(30, 3)
    kept = [tokens.issue(number) for number in range(5)]
    assert [tokens.find(token) for token in kept] == [None, None, 2, 3, 4]
    clock.append(31)
    tokens.issue(5)
    assert len(tokens) == 1


def test_limit_counts_attempts_within_its_time(clock):
    limit = Limit(2, 60)
    limit.begin("a")
    clock.append(10)
    limit.begin("a")
    assert limit.wait("a") == 50
    assert limit.wait("b") == 0
    clock.append(50)
    assert limit.wait("a") == 0
    limit.begin("a")
    assert limit.wait("a") == 10


def test_limit_forgets_attempts_that_succeed(clock):
    limit = Limit(2, 60)
    for _ in range(5):
        limit.begin("a")
        limit.succeed("a")
    assert limit.wait("a") == 0


def test_limit_remembers_a_bounded_number_of_keys(clock, monkeypatch):
    monkeypatch.setattr(Limit, "KEYS", 3)
    limit = Limit(1, 60)
    for key in "abcd":
        limit.begin(key)
    assert [limit.wait(key) > 0 for key in "abcd"] == [False, True, True, True]


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_addresses_of_one_network_count_as_one(address, key):
    assert network_key(address) == key
