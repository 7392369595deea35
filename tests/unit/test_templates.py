"""Every template renders without undefined names, names its owner, and is valid for the program that reads it."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import asterisk_files
import pytest
import rendering

TEMPLATES = sorted(path.relative_to(rendering.ROLES) for path in rendering.ROLES.glob("*/templates/**/*.j2"))
DESCRIPTIONS = {
    "defaults, Debian 12": ("Debian 12", {}),
    "defaults, Ubuntu 18.04": ("Ubuntu 18.04", {}),
    "unusual, Debian 11": ("Debian 11", rendering.UNUSUAL),
    "unusual, Ubuntu 18.04": ("Ubuntu 18.04", rendering.UNUSUAL),
}
DATE = re.compile(r"\b(19|20)\d\d-\d\d-\d\d\b|\b\d\d:[0-5]\d:[0-5]\d\b|\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun),? ")
# Not known to systemd 237 (Ubuntu 18.04), which ignores them with a line in the journal.
LATER_THAN_SYSTEMD_237 = {
    "TemporaryFileSystem",
    "ProtectHostname",
    "RestrictSUIDSGID",
    "ProtectKernelLogs",
    "ProtectClock",
    "ProtectProc",
    "ProcSubset",
}
# Shown to users as it is, so without a comment.
UNSIGNED = {"/etc/issue", "/etc/issue.net"}
# Read by a program that takes the first line.
UNSIGNED |= {f"/etc/labredes-events/{name}" for name in ("ami_secret", "database_password")}
UNSIGNED |= {"/etc/ssl/labredes/passphrase"}
# JSON, which has no comments.
UNSIGNED |= {"/etc/labredes-restic/settings.json", "/etc/labredes-restic/secrets.json"}
# Keywords that sshd_config may contain more than once.
REPEATED_BY_SSHD = {"port", "listenaddress", "hostkey", "acceptenv", "match", "subsystem"}
NOT_IN_OPENSSH_76 = {
    "include",
    "pubkeyacceptedalgorithms",
    "casignaturealgorithms",
    "requiredrsasize",
    "persourcemaxstartups",
    "persourcenetblocksize",
    "persourcepenalties",
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A function from a template and a description's name to the rendered text."""
    secrets = tmp_path_factory.mktemp("secrets")

    def render(template: Path, description: str) -> str:
        system, variables = DESCRIPTIONS[description]
        known = rendering.variables(rendering.FACTS[system], variables, secrets, template.parts[0])
        return rendering.render(rendering.ROLES / template, known)

    return render


def test_templates_are_found():
    assert len(TEMPLATES) > 20


def test_unusual_description_has_only_known_variables():
    known = set()
    for spec in rendering.ROLES.glob("*/meta/argument_specs.yml"):
        known.update(rendering.load(spec)["argument_specs"]["validate"].get("options", {}))
    assert set(rendering.UNUSUAL) - known == set()


@pytest.mark.parametrize("description", DESCRIPTIONS)
@pytest.mark.parametrize("template", TEMPLATES, ids=str)
def test_template_renders_to_a_valid_file(rendered, template, description):
    text = rendered(template, description)
    signed = re.match(r"(?:#!/\S+\n)?(?:\W*\n)?\W*Ansible managed\W*\n", text)
    assert signed or target(template) in UNSIGNED, "the file does not begin with its owner"
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert not DATE.search(text), "a date would change the file at every run"
    assert "{{" not in text and "{%" not in text and "__omit_place_holder__" not in text
    kind(template)(text, DESCRIPTIONS[description][0])


def target(template: Path) -> str:
    """The place of a file on the target."""
    return "/" + str(template.relative_to(template.parts[0] + "/templates")).removesuffix(".j2")


def kind(template: Path):
    """The checker for a file, by its place on the target."""
    for pattern, checker in CHECKERS.items():
        if re.fullmatch(pattern, target(template)):
            return checker
    raise AssertionError(f"{target(template)} has no checker; add one to CHECKERS")


def test_every_checker_has_a_template():
    used = {kind(template) for template in TEMPLATES}
    assert {checker.__name__ for checker in CHECKERS.values() if checker not in used} == set()


def asterisk_conf(text: str, _system: str) -> None:
    """Unique sections with settings."""
    sections = asterisk_files.parse(text)
    repeated = [name for name, times in Counter(section.name for section in sections).items() if times > 1]
    assert not repeated, f"sections given twice: {repeated}"


def pjsip_conf(text: str, _system: str) -> None:
    """Sections with a type, unique for each type; the sections that they refer to exist."""
    sections = asterisk_files.parse(text)
    typed = Counter()
    for section in sections:
        type_ = asterisk_files.setting(sections, section, "type")
        assert type_, f"[{section.name}] has no type"
        typed[type_, section.name] += 1
    assert max(typed.values()) == 1, f"given twice: {[entry for entry, times in typed.items() if times > 1]}"
    for section in sections:
        for key, type_ in (("auth", "auth"), ("outbound_auth", "auth"), ("aors", "aor"), ("transport", "transport")):
            for name in filter(None, (section.get(key) or "").split(",")):
                assert (type_, name) in typed, f"[{section.name}] refers to {type_} {name}, which does not exist"


def lua(text: str, _system: str) -> None:
    """A program that Lua 5.2 compiles and whose only global is the one that Asterisk reads."""
    listed = subprocess.run(["luac5.2", "-p", "-l", "-"], input=text, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr
    assert set(re.findall(r"SETTABUP.*_ENV \"(\w+)\"", listed.stdout)) == {"extensions"}


def asterisk_conf_empty(text: str, _system: str) -> None:
    """A file that must exist and has no settings."""
    assert asterisk_files.parse(text) == []


def unit(text: str, _system: str) -> None:
    """A unit whose options systemd 237 knows, except those below the comment about later ones."""
    section = None
    later = False
    for line in text.splitlines():
        later = later or line.startswith("# Later than systemd 237")
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line
            assert section in ("[Unit]", "[Service]", "[Install]", "[Timer]", "[Path]", "[Socket]"), line
            continue
        key, equals, value = line.partition("=")
        assert section and equals and re.fullmatch(r"[A-Z][A-Za-z]+", key) and value == value.strip(), line
        assert (key in LATER_THAN_SYSTEMD_237) == (later and section == "[Service]"), line
        assert "@system-service" not in value, line


def ini(text: str, _system: str) -> None:
    """An ini file without repeated sections or keys."""
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.read_string(text)
    assert parser.sections()


def as_json(text: str, _system: str) -> None:
    """An object."""
    assert isinstance(json.loads(text), dict)


def pgpass(text: str, _system: str) -> None:
    """One line of libpq's password file, with a password."""
    (line,) = [line for line in text.splitlines() if not line.startswith("#")]
    assert re.fullmatch(r"\*:\*:\*:[a-z_0-9]+:(\\.|[^:\\])+", line)


def systemd_conf(text: str, _system: str) -> None:
    """One section, which may be empty."""
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.read_string(text)
    assert len(parser.sections()) == 1


def sysctl_conf(text: str, _system: str) -> None:
    """Unique names with numbers."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    keys = [re.fullmatch(r"([a-z0-9_.]+) = -?[0-9]+", line) for line in lines]
    assert lines and all(keys), lines
    assert len({key[1] for key in keys}) == len(keys)


def tmpfiles(text: str, _system: str) -> None:
    """Lines that systemd-tmpfiles takes, of what it removes when the host starts."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines and all(re.fullmatch(r"r! /\S+", line) for line in lines), lines


def limits_conf(text: str, _system: str) -> None:
    """Rules of four fields."""
    rules = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert all(len(rule) == 4 and rule[1] in ("soft", "hard", "-") for rule in rules), rules


def modprobe_conf(text: str, _system: str) -> None:
    """Unique modules that are blocked."""
    rules = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert all(rule[0] == "install" and rule[2:] == ["/bin/false"] for rule in rules), rules
    assert len({rule[1] for rule in rules}) == len(rules)


def profile(text: str, _system: str) -> None:
    """Lines that every shell can read at login."""
    checked = subprocess.run(["sh", "-eu"], input=text + "echo whole", capture_output=True, text=True, check=False)
    assert checked.stdout == "whole\n", checked.stderr


def words(text: str, _system: str) -> None:
    """Text."""
    assert text.strip()


def logrotate(text: str, _system: str) -> None:
    """Blocks with balanced braces and scripts."""
    words = [line.split()[-1] for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert words.count("{") == words.count("}") > 0
    assert sum(word in ("postrotate", "prerotate") for word in words) == words.count("endscript")


def apt_conf(text: str, _system: str) -> None:
    """Complete statements."""
    lines = [line for line in text.splitlines() if re.match(r"[A-Za-z]", line)]
    bad = [line for line in lines if not re.fullmatch(r'[\w:-]+ "[^"]*";', line)]
    assert lines and not bad, bad


def sshd_config(text: str, system: str) -> None:
    """Keywords with values, once each, on Ubuntu 18.04 only what its OpenSSH 7.6 knows."""
    seen = set()
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        keyword, _, value = line.strip().partition(" ")
        assert re.fullmatch(r"[A-Za-z0-9]+", keyword) and value.strip(), line
        assert keyword.lower() in REPEATED_BY_SSHD or keyword.lower() not in seen, f"given twice: {line}"
        if system == "Ubuntu 18.04":
            assert keyword.lower() not in NOT_IN_OPENSSH_76, line
            assert not re.search(r"rsa-sha2-[0-9]+-cert|sntrup|\bsk-", value), line
        seen.add(keyword.lower())
    assert "port" in seen


def shell_script(text: str, _system: str) -> None:
    """A script that sh can read."""
    assert text.startswith("#!/bin/sh\n")
    checked = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def postgresql_conf(text: str, _system: str) -> None:
    """Unique settings."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    keys = [re.fullmatch(r"([a-z_.]+) = \S.*", line) for line in lines]
    assert lines and all(keys), lines
    assert len({key[1] for key in keys}) == len(keys)


def pg_hba(text: str, _system: str) -> None:
    """Rules of four or five fields; none of them lets a user in without authentication."""
    rules = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert rules
    for rule in rules:
        assert rule[0] in ("local", "host", "hostssl") and len(rule) == (4 if rule[0] == "local" else 5), rule
        assert rule[-1] in ("peer", "scram-sha-256", "md5", "reject"), rule


def accepted_by_nft(text: str) -> None:
    """nft accepts the rules, where it is installed."""
    if shutil.which("nft") and shutil.which("unshare"):
        checked = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--net", "nft", "--check", "--file", "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr


def nft_ruleset(text: str, _system: str) -> None:
    """One table, replaced in one transaction, whose policy is drop; nft accepts it where it is installed."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert lines[:3] == ["add table inet labredes", "delete table inet labredes", "table inet labredes {"]
    assert sum("table inet" in line for line in lines) == 3 and "flush" not in text and "policy drop;" in text
    assert text.count("{") == text.count("}")
    nobody = [line for line in lines if re.search(r"\{\s*\}", line)]
    assert not nobody, f"empty set, a syntax error: {nobody}"
    accepted_by_nft(text)


def nft_table(text: str, _system: str) -> None:
    """One table, replaced in one transaction; nft accepts it where it is installed."""
    name = re.search(r"^add table (inet \S+)\ndelete table \1\ntable \1 {$", text, re.MULTILINE)[1]
    assert set(re.findall(r"^ *(?:add|delete)? ?table (.*?)(?: {)?$", text, re.MULTILINE)) == {name}
    assert "{  }" not in text
    accepted_by_nft(text)


def fail2ban(text: str, _system: str) -> None:
    """Unique sections and settings for fail2ban; each failregex contains one address and compiles."""
    parser = configparser.ConfigParser(strict=True, interpolation=configparser.BasicInterpolation())
    parser.read_string(text)
    assert parser.sections()
    for section in parser.sections():
        for line in filter(None, parser[section].get("failregex", "").splitlines()):
            assert line.startswith("^") and line.endswith("$") and line.count("<ADDR>") == 1, line
            re.compile(line.replace("<ADDR>", "ADDR"))


def debian_control(text: str, _system: str) -> None:
    """A source paragraph and a package's, each of fields that are not empty."""
    paragraphs = [
        dict(re.findall(r"^([A-Z][A-Za-z-]+): (.*\S.*)$", paragraph, re.MULTILINE)) for paragraph in text.split("\n\n")
    ]
    assert len(paragraphs) == 2 and paragraphs[0]["Source"] == paragraphs[1]["Package"]
    for line in text.splitlines():
        assert re.fullmatch(r"#.*|| \S.*|[A-Z][A-Za-z-]+: \S.*", line), line


def make_variables(text: str, _system: str) -> None:
    """Variables and nothing else, each given once."""
    names = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            names.append(re.fullmatch(r"(?:export )?(\w+) := ?[^$#]*", line)[1])
    assert {"enable", "disable", "pjproject", "sounds", "LUA_VERSIONS"} <= set(names)
    assert len(names) == len(set(names))


CHECKERS = {
    r"/debian/control": debian_control,
    r"/debian/options\.mk": make_variables,
    r"/etc/nftables\.conf": nft_ruleset,
    r"/etc/fail2ban/action\.d/.*\.nft": nft_table,
    r"/etc/fail2ban/[a-z0-9]+\.d/labredes[a-z-]*\.(conf|local)": fail2ban,
    r"/etc/asterisk/pjsip\.conf": pjsip_conf,
    r"/etc/asterisk/acl\.conf": asterisk_conf_empty,
    r"/etc/asterisk/[a-z0-9_]+\.conf": asterisk_conf,
    r"/etc/asterisk/extensions\.lua": lua,
    r"/etc/systemd/system/[a-z.-]+\.(service|timer)(\.d/[a-z0-9-]+\.conf)?": unit,
    r"/etc/odbc\.ini": ini,
    r"/etc/labredes-events/service\.ini": ini,
    r"/etc/labredes-events/[a-z_]+": words,
    r"/etc/labredes-restic/[a-z]+\.json": as_json,
    r"/etc/labredes-(cdr|retention)/[a-z]+\.conf": ini,
    r"/etc/labredes-(cdr|retention)/pgpass": pgpass,
    r"/etc/tmpfiles\.d/[a-z-]+\.conf": tmpfiles,
    r"/etc/systemd/[a-z]+\.conf\.d/[0-9a-z-]+\.conf": systemd_conf,
    r"/etc/sysctl\.d/[0-9a-z-]+\.conf": sysctl_conf,
    r"/etc/security/limits\.d/[0-9a-z-]+\.conf": limits_conf,
    r"/etc/modprobe\.d/[0-9a-z-]+\.conf": modprobe_conf,
    r"/etc/profile\.d/[a-z-]+\.sh": profile,
    r"/etc/issue(\.net)?": words,
    r"/etc/logrotate\.d/[a-z-]+": logrotate,
    r"/etc/apt/apt\.conf\.d/[0-9a-z-]+": apt_conf,
    r"/etc/ssh/sshd_config": sshd_config,
    r"/etc/ssl/labredes/passphrase": words,
    r"/usr/local/s?bin/[a-z-]+": shell_script,
    r"/etc/postgresql/.*pg_hba\.conf": pg_hba,
    r"/etc/postgresql/.*\.conf": postgresql_conf,
}
