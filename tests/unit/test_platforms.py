"""What differs between platforms: versions of ansible-core on the controller, and components of Ubuntu's archive."""

from __future__ import annotations

import re

import pytest
import rendering
import yaml

ARCHIVE = "http://archive.example.org/ubuntu/"
# What apt-get indextargets prints, as roles/system/tasks/universe.yml asks for it.
CONFIGURED = ["configured main", "configured universe"]
LIVE_SERVER = [f"Ubuntu main {ARCHIVE} {suite}" for suite in ("bionic", "bionic-updates", "bionic-security")]
PPA = ["LP-PPA-ana-tools main http://ppa.example.org/ana/tools/ubuntu bionic"]


@pytest.mark.parametrize(
    ("components", "missing"),
    [
        (LIVE_SERVER + PPA + LIVE_SERVER, [line.split(" ", 2)[2] for line in LIVE_SERVER]),
        ([*LIVE_SERVER, f"Ubuntu universe {ARCHIVE} bionic", *CONFIGURED], []),
        # Enabled, and its lists are not downloaded yet.
        ([*LIVE_SERVER, *CONFIGURED], []),
        (PPA, []),
        (["Ubuntu main cdrom://Ubuntu-Server 18.04/ bionic", *LIVE_SERVER[:1]], [f"{ARCHIVE} bionic"]),
        # Lists that could not be downloaded have no origin.
        ([f" main {ARCHIVE} bionic"], []),
    ],
)
def test_universe_is_enabled_beside_main_alone(components, missing, tmp_path):
    known = rendering.variables(rendering.FACTS["Ubuntu 18.04"], {}, tmp_path, "system")
    known["__system_components"] = {"stdout": "\n".join(components), "stdout_lines": components}
    assert rendering.evaluate("{{ __system_without_universe }}", known) == missing


def condition(path: str, name: str) -> str:
    """The condition of the task whose name begins so."""
    (task,) = [task for task in yaml.safe_load((rendering.ROLES / path).read_text()) if task["name"].startswith(name)]
    return "{{ " + task["when"] + " }}"


def test_universe_is_enabled_before_the_first_upgrade_on_ubuntu(tmp_path):
    path = "system/tasks/upgrade.yml"
    names = [task["name"] for task in yaml.safe_load((rendering.ROLES / path).read_text())]
    assert (
        names.index("Enable the component universe of Ubuntu")
        == names.index("Update the package lists and upgrade") - 1
    )
    for platform, facts in rendering.FACTS.items():
        known = rendering.variables(facts, {}, tmp_path, "system")
        assert rendering.evaluate(condition(path, "Enable the"), known) is platform.startswith("Ubuntu")


@pytest.mark.parametrize(
    ("version", "refused"),
    [("2.15.13", True), ("2.16.0", False), ("2.19.14", False), ("2.21.5", False), ("2.22.0b1", True), ("3.0.0", True)],
)
def test_core_that_is_not_supported_is_refused(version, refused, tmp_path):
    major, minor = version.split(".")[:2]
    known = rendering.variables(rendering.FACTS["Debian 12"], {}, tmp_path, "labredes")
    known["ansible_version"] = {"full": version, "major": int(major), "minor": int(minor)}
    assert rendering.evaluate(condition("labredes/tasks/validate.yml", "Check the version of"), known) is refused


def test_supported_cores_are_the_same_everywhere():
    own = rendering.load(rendering.ROLES / "labredes/vars/main.yml")
    first, last = own["__labredes_core_first"], own["__labredes_core_last"]
    after = last.replace(last.split(".")[1], str(int(last.split(".")[1]) + 1))
    runtime = rendering.load(rendering.ROOT / "meta/runtime.yml")
    assert runtime["requires_ansible"] == f">={first}.0,<{after}.0"
    for path in rendering.ROLES.glob("*/meta/main.yml"):
        assert rendering.load(path)["galaxy_info"]["min_ansible_version"] == first
    assert f"{first} to {last}" in " ".join((rendering.ROOT / "README.md").read_text().split())


@pytest.mark.parametrize(("platform", "name"), [("Ubuntu 18.04", "libncurses5-dev"), ("Debian 12", "libncurses-dev")])
def test_build_depends_on_the_real_package_of_ncurses(platform, name, tmp_path):
    known = rendering.variables(rendering.FACTS[platform], {}, tmp_path, "asterisk_package")
    dependencies = rendering.evaluate("{{ __asterisk_package_all_dependencies }}", known)
    assert [one for one in dependencies if "ncurses" in one] == [name]


def test_architectures_are_those_of_which_a_package_is_made(tmp_path):
    names = rendering.load(rendering.ROLES / "preflight/vars/main.yml")["__preflight_architectures"]
    for name in [*names, "riscv64"]:
        known = rendering.variables(
            {**rendering.FACTS["Debian 12"], "architecture": name}, {}, tmp_path, "asterisk_package"
        )
        packaged = rendering.evaluate("{{ __asterisk_package_architecture }}", known)
        assert (packaged != name) is (name in names)


@pytest.mark.parametrize(
    ("effective", "described", "dropped"),
    [
        (
            ["port 22", "authorizedkeyscommand none", "authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2"],
            {},
            0,
        ),
        (["authorizedkeyscommand /usr/bin/sss_ssh_authorizedkeys", "authorizedkeyscommanduser nobody"], {}, 1),
        (["authorizedkeyscommand /usr/bin/keys"], {"AuthorizedKeysCommandUser": "nobody"}, 1),
        (["authorizedkeyscommand /usr/bin/keys"], {"AuthorizedKeysCommand": "none"}, 0),
        (["authorizedkeysfile /etc/ssh/keys/%u", "trustedusercakeys /etc/ssh/ca.pub"], {}, 2),
        (["authorizedkeysfile /etc/ssh/keys/%u", "trustedusercakeys none"], {"AuthorizedKeysFile": "/x"}, 0),
        (["revokedkeys /etc/ssh/revoked", "authorizedprincipalscommand /usr/bin/principals"], {}, 2),
        # The configuration is the role's own.
        ([], {}, 0),
    ],
)
def test_sources_of_keys_are_dropped_only_by_name(effective, described, dropped, tmp_path):
    known = rendering.variables(rendering.FACTS["Debian 12"], {"sshd_user_keys": described}, tmp_path, "sshd")
    known["__sshd_key_sources"] = {"stdout_lines": effective}
    assert len(rendering.evaluate("{{ __sshd_dropped }}", known)) == dropped


@pytest.mark.parametrize(
    ("effective", "described", "dropped"),
    [
        (["port 22", "  Match  Group sftponly", "match=User ana"], [], ["group sftponly", "user ana"]),
        (["Match Group SFTPonly"], [{"criteria": "Group SFTPonly", "settings": {"ForceCommand": "internal-sftp"}}], []),
        (["Match all", "matchless yes"], [], []),
    ],
)
def test_match_blocks_are_dropped_only_by_name(effective, described, dropped, tmp_path):
    known = rendering.variables(rendering.FACTS["Debian 12"], {"sshd_match_blocks": described}, tmp_path, "sshd")
    known["__sshd_key_sources"] = {"stdout_lines": effective}
    assert rendering.evaluate("{{ __sshd_dropped_blocks }}", known) == dropped


@pytest.mark.parametrize(("described", "dropped"), [([], 2), (["admin"], 0)])
def test_lists_of_users_are_dropped_only_for_another_list(described, dropped, tmp_path):
    known = rendering.variables(rendering.FACTS["Debian 12"], {"sshd_allow_users": described}, tmp_path, "sshd")
    known["__sshd_key_sources"] = {"stdout_lines": ["allowgroups ssh", "denyusers ana", "allowtcpforwarding yes"]}
    assert len(rendering.evaluate("{{ __sshd_dropped_users }}", known)) == dropped


# OpenSSH of each platform, and the release that first knew a keyword or an algorithm of the role's.
OPENSSH = {"Ubuntu 18": 7.6, "Ubuntu 20": 8.2, "Debian 11": 8.4, "Ubuntu 22": 8.9, "Debian 12": 9.2, "Ubuntu 24": 9.6}
FIRST_KNOWN = {
    "rsa-sha2-256-cert-v01@openssh.com": 7.8,
    "rsa-sha2-512-cert-v01@openssh.com": 7.8,
    "CASignatureAlgorithms": 7.9,
    "sk-ecdsa-sha2-nistp256@openssh.com": 8.2,
    "sk-ssh-ed25519@openssh.com": 8.2,
    "sk-ssh-ed25519-cert-v01@openssh.com": 8.2,
    "PubkeyAcceptedAlgorithms": 8.5,
    "sntrup761x25519-sha512@openssh.com": 8.5,
    "RequiredRSASize": 9.1,
}


@pytest.mark.parametrize("platform", OPENSSH)
def test_sshd_config_has_exactly_what_its_openssh_knows(platform, tmp_path):
    distribution, release = platform.split()
    facts = {**rendering.FACTS["Debian 12"], "distribution": distribution, "distribution_major_version": release}
    known = rendering.variables(facts, {}, tmp_path, "sshd")
    words = re.split(r"[\s,]", rendering.render(rendering.ROLES / "sshd/templates/etc/ssh/sshd_config.j2", known))
    assert {word for word in FIRST_KNOWN if word in words} == {
        word for word, since in FIRST_KNOWN.items() if since <= OPENSSH[platform]
    }


def test_lists_that_are_written_as_text_are_parsed():
    """ansible-core 2.19 and later takes a list only from an expression."""
    found = [
        f"{path.relative_to(rendering.ROOT)}: {name}"
        for path in [*rendering.ROLES.glob("*/*/**/*.yml"), *(rendering.ROOT / "playbooks").rglob("*.yml")]
        for name, text in texts(rendering.load(path))
        if text.startswith(("[{%", "{{%")) and not name.endswith("_text")
    ]
    assert found == []


def texts(content, name: str = "") -> list[tuple[str, str]]:
    """Every text of a file with the name of its key."""
    if isinstance(content, str):
        return [(name, content)]
    pairs = content.items() if isinstance(content, dict) else ((name, one) for one in content or [])
    return [found for key, one in pairs if isinstance(one, (str, dict, list)) for found in texts(one, str(key))]
