"""Lookup labredes.pbx.secret: own values, generated values, refused values."""

import os
import stat
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import rendering
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from rendering import trusted

STRONG = "kR7vTz0qWm2xBn5c"
# A full disk of one page, in a mount namespace of its own; then the lookup of one secret on it.
FULL_DISK = """
mount -t tmpfs -o size=4k none "$1" && head -c 4096 /dev/zero > "$1/full" || exit 9
"$2" -c 'if True:
    import sys
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader, lookup_loader
    from ansible.template import Templar
    init_plugin_loader([sys.argv[2]])
    variables = {"inventory_hostname": "pbx1", "labredes_secrets_dir": sys.argv[1]}
    plugin = lookup_loader.get("labredes.pbx.secret", loader=DataLoader(), templar=Templar(DataLoader(), variables))
    print(plugin.run(["phone_6001"], variables, check=True)[0])' "$1" "$3"
find "$1" -type f
"""


@pytest.fixture(name="secret")
def fixture_secret(tmp_path):
    """A function that looks one secret up for host pbx1, with its files under tmp_path."""

    def look_up(name, host="pbx1", check_mode=False, own=None, allow_weak=False, more=None, **options):
        variables = {
            "inventory_hostname": host,
            "labredes_secrets_dir": str(tmp_path / "secrets"),
            "ansible_check_mode": check_mode,
            "labredes_allow_weak_secrets": allow_weak,
        }
        variables |= more or {}
        if own is not None:
            variables["labredes_secrets"] = own
        loader = DataLoader()
        plugin = lookup_loader.get("labredes.pbx.secret", loader=loader, templar=Templar(loader, variables))
        return plugin.run([name], variables, **options)[0]

    look_up.directory = tmp_path / "secrets"
    return look_up


def refusal(secret, name, value, **options):
    """The message with which an own value is refused."""
    with pytest.raises(AnsibleError) as caught:
        secret(name, own={name: value}, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_secret_is_generated_once_with_mode_0600(secret):
    first = secret("database_password")
    assert len(first) == 32
    assert set(first) <= set(string.ascii_letters + string.digits)
    assert secret("database_password") == first
    path = secret.directory / "pbx1" / "database_password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["database_password"]


def test_hosts_and_names_have_different_secrets(secret):
    assert len({secret("a_1"), secret("a_2"), secret("a_1", host="pbx2")}) == 3


def test_parallel_lookups_return_the_same_secret(secret):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _n: secret("ami_events"), range(32)))) == 1


def test_generated_pin_has_only_digits_and_the_length(secret):
    pins = [secret(f"mailbox_{number}", length=4, chars="digits") for number in range(6001, 6040)]
    assert all(pin.isdigit() and len(pin) == 4 for pin in pins)


def test_killed_run_leaves_no_half_written_secret(secret, monkeypatch):
    def killed(_handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        secret("database_password")
    assert not (secret.directory / "pbx1" / "database_password").exists()


def test_check_mode_writes_nothing(secret):
    assert len(secret("database_password", check_mode=True)) == 32
    assert not secret.directory.exists()


def test_directory_may_be_a_template(secret, tmp_path):
    place = trusted(
        {"labredes_secrets_dir": "{{ inventory_dir | dirname }}/shared", "inventory_dir": f"{tmp_path}/inventory"}
    )
    assert secret("phone_6001", more=place) == (tmp_path / "shared/pbx1/phone_6001").read_text().strip()


def test_names_cannot_leave_the_directory(secret):
    for name in ("../../escape", "/etc/x", "..", "*21"):
        secret(name, host="fe80::1%eth0/..")
    kept = [os.path.join(place, name) for place, _dirs, names in os.walk(secret.directory) for name in names]
    assert len(kept) == 4
    assert {os.path.dirname(os.path.dirname(path)) for path in kept} == {str(secret.directory)}


def test_own_value_takes_precedence_and_may_be_a_template(secret):
    assert secret("phone_6001", own={"phone_6001": STRONG, "other": "{{ not_defined }}"}) == STRONG
    assert secret("phone_6001", own=trusted({"phone_6001": "{{ 'kR7vTz0q' ~ 'Wm2xBn5c' }}"})) == STRONG
    assert not secret.directory.exists()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("database_password", "Obelix", "fewer than 12"),
        ("phone_6001", "unsecurepassword", "common words"),
        ("phone_6001", "phone_6001_6001", "common words"),
        ("database_password", "Password12345678", "common words"),
        ("database_password", "ababababababab", "repeats"),
        ("database_password", "1027384956102", "no letters"),
        ("database_password", "1234567890123", "in a row"),
        ("database_password", "abcdefghijklmnop", "in a row"),
        ("database_password", "qwertyuiopas", "common words"),
        ("database_password", "P4ssw0rd1234!", "common words"),
        ("database_password", "xK7qPxK7qPxK7qP", "repeats"),
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
def test_unusable_values_are_refused(secret, name, value, reason):
    sentence = refusal(secret, name, value)
    assert reason in sentence
    assert sentence.startswith(f"pbx1: labredes_secrets.{name} ")
    assert not value or str(value) not in sentence


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("123", "has 3 digits, fewer than 4"),
        ("8888", "repeated"),
        ("1234", "in a row"),
        ("9876", "in a row"),
        ("7890", "in a row"),
        ("6001", "number it belongs to"),
        ("12a4", "must be 4 to 10 digits"),
        ("47194719471", "must be 4 to 10 digits"),
        (4711, "not a string"),
    ],
)
def test_weak_pins_are_refused(secret, value, reason):
    assert reason in refusal(secret, "mailbox_6001", value, chars="digits")


@pytest.mark.parametrize("switch", ["true", True])
@pytest.mark.parametrize("off", ["false", "no", "0", False])
def test_allow_weak_may_be_a_string(secret, switch, off):
    weak = {"mailbox_6001": "8888"}
    assert secret("mailbox_6001", own=weak, chars="digits", allow_weak=switch) == "8888"
    with pytest.raises(AnsibleError):
        secret("mailbox_6001", own=weak, chars="digits", allow_weak=off)


def test_allow_weak_accepts_weak_but_not_unusable_values(secret):
    assert secret("mailbox_6001", own={"mailbox_6001": "8888"}, chars="digits", allow_weak=True) == "8888"
    assert secret("mailbox_6001", own={"mailbox_6001": "12"}, chars="digits", allow_weak=True) == "12"
    assert "character other than" in refusal(secret, "database_password", "a;b", allow_weak=True)
    assert "4 to 10 digits" in refusal(secret, "mailbox_6001", "47,11", chars="digits", allow_weak=True)


def test_emptied_file_is_refused(secret):
    secret("database_password")
    path = secret.directory / "pbx1" / "database_password"
    path.write_text("")
    with pytest.raises(AnsibleError, match="is empty"):
        secret("database_password")


def test_unwritable_directory_is_reported(secret):
    secret.directory.parent.mkdir(exist_ok=True)
    secret.directory.write_text("in the way")
    with pytest.raises(AnsibleError, match="cannot be read or written"):
        secret("database_password")


def test_labredes_secrets_must_be_a_dictionary(secret):
    with pytest.raises(AnsibleError, match="not a dictionary"):
        secret("database_password", own=["database_password"])


def test_check_returns_only_the_message(secret):
    weak = {"database_password": "Obelix"}
    assert secret("database_password", own=weak, check=True) == refusal(secret, "database_password", "Obelix")
    assert secret("database_password", own={"database_password": STRONG}, check=True) == ""
    assert secret("database_password", check=True) == ""


def test_missing_secret_is_empty_without_generation(secret):
    assert secret("phone_6001", generate=False) == secret("phone_6001", generate=False, check=True) == ""
    assert secret("phone_6001", more={"__labredes_generate": False}) == ""
    assert not secret.directory.exists()
    assert secret("phone_6001", generate=False, own={"phone_6001": STRONG}) == STRONG
    assert secret("phone_6001") == secret("phone_6001", generate=False) != ""


def test_inspection_describes_a_secret_and_generates_none(secret):
    group = {"names": ["mailbox_6001"], "length": 6, "chars": "digits", "steps": ["pbx"]}
    missing = secret(group, inspect=True, generate=False)
    assert (missing["value"], missing["set"], missing["kept"], missing["error"]) == ("", False, False, "")
    assert missing["file"] == str(secret.directory / "pbx1/mailbox_6001") and missing["steps"] == ["pbx"]
    pin = secret(group)
    found = secret(group, inspect=True, generate=False)
    assert len(pin) == 6 and (found["value"], found["kept"]) == (pin, True)
    own = secret(group, inspect=True, generate=False, own={"mailbox_6001": "4711"})
    assert (own["value"], own["set"]) == ("4711", True)
    assert "in a row" in secret(group, inspect=True, generate=False, own={"mailbox_6001": "1234"})["error"]


def test_replaced_secret_is_a_new_one(secret):
    first, other = secret("phone_6001"), secret("phone_6002")
    second = secret("phone_6001", replace=["phone_6001"])
    assert second == secret("phone_6001") != first
    assert secret("phone_6002", replace=["phone_6001"]) == other
    assert stat.S_IMODE((secret.directory / "pbx1" / "phone_6001").stat().st_mode) == 0o600
    assert sorted(os.listdir(secret.directory / "pbx1")) == ["phone_6001", "phone_6002"]


@pytest.mark.parametrize("names", ["phone_6001", "all", ["phone_6001"], "phone_6002,phone_6001"])
def test_check_mode_shows_a_rotation_without_keeping_it(secret, names):
    first, rotate = secret("phone_6001"), {"labredes_rotate_secrets": names}
    assert secret("phone_6001", check_mode=True, more=rotate) != first
    assert secret("phone_6001", check_mode=True, more={"labredes_rotate_secrets": "phone_6002"}) == first
    assert secret("phone_6001", more=rotate) == first, "only the task that replaces it may do so"


def test_value_of_another_host_is_set_there(secret):
    hosts = {"hostvars": {"db1": {"labredes_secrets": {"database_password": STRONG}}}, "inventory_hostname": "pbx1"}
    theirs = {"names": ["database_password"], "host": "db1"}
    assert secret(theirs, own={"database_password": STRONG[::-1]}, more=hosts) == STRONG
    assert secret("database_password", own={"database_password": STRONG[::-1]}, more=hosts) == STRONG[::-1]


def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", FULL_DISK, "sh", tmp_path, sys.executable]
    command.append(rendering.ROOT / "collections")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    sentence, *files = done.stdout.splitlines()
    assert "phone_6001 cannot be read or written" in sentence and "No space left on device" in sentence, done.stderr
    assert files == [f"{tmp_path}/full"]
