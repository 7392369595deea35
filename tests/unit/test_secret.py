"""The lookup labredes.pbx.secret: the user's values, what is generated, and what is refused."""

import os
import stat
import string
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar

STRONG = "kR7vTz0qWm2xBn5c"


@pytest.fixture(name="secret")
def fixture_secret(tmp_path):
    """A function that looks one secret up for host pbx1, with its files under tmp_path."""

    def look_up(name, host="pbx1", check_mode=False, own=None, allow_weak=False, **options):
        variables = {
            "inventory_hostname": host,
            "labredes_secrets_dir": str(tmp_path / "secrets"),
            "ansible_check_mode": check_mode,
            "labredes_allow_weak_secrets": allow_weak,
        }
        if own is not None:
            variables["labredes_secrets"] = own
        loader = DataLoader()
        plugin = lookup_loader.get("labredes.pbx.secret", loader=loader, templar=Templar(loader, variables))
        return plugin.run([name], variables, **options)[0]

    look_up.directory = tmp_path / "secrets"
    return look_up


def refusal(secret, name, value, **options):
    """The sentence with which a value of the user's is refused."""
    with pytest.raises(AnsibleError) as caught:
        secret(name, own={name: value}, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_generated_once_and_kept_private(secret):
    first = secret("database_password")
    assert len(first) == 32
    assert set(first) <= set(string.ascii_letters + string.digits)
    assert secret("database_password") == first
    path = secret.directory / "pbx1" / "database_password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["database_password"]


def test_hosts_and_names_have_secrets_of_their_own(secret):
    assert len({secret("a_1"), secret("a_2"), secret("a_1", host="pbx2")}) == 3


def test_many_at_once_agree(secret):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _n: secret("ami_events"), range(32)))) == 1


def test_pin_has_digits_only_and_the_length_asked_for(secret):
    pins = [secret(f"mailbox_{number}", length=4, chars="digits") for number in range(6001, 6040)]
    assert all(pin.isdigit() and len(pin) == 4 for pin in pins)


def test_check_mode_writes_nothing(secret):
    assert len(secret("database_password", check_mode=True)) == 32
    assert not secret.directory.exists()


def test_names_cannot_leave_the_directory(secret):
    for name in ("../../escape", "/etc/x", "..", "*21"):
        secret(name, host="fe80::1%eth0/..")
    kept = [os.path.join(place, name) for place, _dirs, names in os.walk(secret.directory) for name in names]
    assert len(kept) == 4
    assert {os.path.dirname(os.path.dirname(path)) for path in kept} == {str(secret.directory)}


def test_the_users_value_wins_and_may_be_a_template(secret):
    assert secret("phone_6001", own={"phone_6001": STRONG, "other": "{{ not_defined }}"}) == STRONG
    assert secret("phone_6001", own={"phone_6001": "{{ 'kR7vTz0q' ~ 'Wm2xBn5c' }}"}) == STRONG
    assert not secret.directory.exists()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("database_password", "Obelix", "fewer than 12"),
        ("phone_6001", "unsecurepassword", "guessed first"),
        ("phone_6001", "phone_6001_6001", "guessed first"),
        ("database_password", "Password12345678", "guessed first"),
        ("database_password", "ababababababab", "repeats"),
        ("database_password", "1234567890123", "no letters"),
        ("database_password", "", "empty"),
        ("database_password", "x" * 40 + STRONG * 3, "more than 79"),
        ("database_password", STRONG + ";x", "character other than"),
        ("database_password", STRONG + "\nx", "character other than"),
        ("database_password", STRONG + "\n", "character other than"),
        ("database_password", STRONG + '"', "character other than"),
        ("database_password", STRONG + "ñ", "character other than"),
        ("database_password", STRONG + "${EXTEN}", "character other than"),
        ("database_password", 123456789012345, "not a string"),
    ],
)
def test_values_that_cannot_serve_are_refused(secret, name, value, reason):
    sentence = refusal(secret, name, value)
    assert reason in sentence
    assert sentence.startswith(f"pbx1: labredes_secrets.{name} ")
    assert not value or str(value) not in sentence


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("123", "fewer than 4"),
        ("8888", "repeated"),
        ("1234", "in a row"),
        ("9876", "in a row"),
        ("7890", "in a row"),
        ("6001", "number it belongs to"),
        ("12a4", "digits only"),
        (4711, "not a string"),
    ],
)
def test_weak_pins_are_refused(secret, value, reason):
    assert reason in refusal(secret, "mailbox_6001", value, chars="digits")


def test_weak_values_pass_when_allowed_and_broken_ones_never(secret):
    assert secret("mailbox_6001", own={"mailbox_6001": "8888"}, chars="digits", allow_weak=True) == "8888"
    assert "character other than" in refusal(secret, "database_password", "a;b", allow_weak=True)


def test_an_emptied_file_is_refused_not_used(secret):
    secret("database_password")
    path = secret.directory / "pbx1" / "database_password"
    path.write_text("")
    with pytest.raises(AnsibleError, match="is empty"):
        secret("database_password")


def test_an_unwritable_place_is_told(secret):
    secret.directory.parent.mkdir(exist_ok=True)
    secret.directory.write_text("in the way")
    with pytest.raises(AnsibleError, match="cannot be kept"):
        secret("database_password")


def test_labredes_secrets_must_be_a_dictionary(secret):
    with pytest.raises(AnsibleError, match="not a dictionary"):
        secret("database_password", own=["database_password"])


def test_check_answers_with_the_sentence_alone(secret):
    weak = {"database_password": "Obelix"}
    assert secret("database_password", own=weak, check=True) == refusal(secret, "database_password", "Obelix")
    assert secret("database_password", own={"database_password": STRONG}, check=True) == ""
    assert secret("database_password", check=True) == ""
