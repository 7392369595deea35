"""The table of rules: bad values of every variable are refused in a sentence that names it, odd ones are accepted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import descriptions
import pytest
import rendering
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.labredes.pbx.plugins.filter.variable_names import unknown_variables
from ansible_collections.labredes.pbx.plugins.lookup import description_problems
from hypothesis import HealthCheck, configuration, given, settings, strategies

configuration.set_hypothesis_home_dir(rendering.ROOT / ".cache/hypothesis")

TABLE = description_problems.load(rendering.ROLES / "labredes/vars/rules.yml")
OPTIONS = description_problems.specs()
CHECKER = description_problems.Checker(TABLE)
RENAMED = rendering.load(rendering.ROLES / "labredes/vars/renamed.yml")["__labredes_renamed"]
BAD = descriptions.listed("bad_descriptions.yml")
ODD = descriptions.listed("odd_descriptions.yml")
# What a user must never read: words of Python and of Ansible's own errors.
JARGON = re.compile(r"Traceback|NoneType|<class|Error|[Uu]nexpected|unhandled|AnsibleUndefined|attribute|convert|\n")
SPACES = strategies.sampled_from([" ", "\n", "a b", "ñ;", '"', "", "${X}", "-- x", "\x00", "{}", "x y;z"])


def described(description: dict, directory: str = "/nonexistent") -> list[str]:
    """What the lookup says of a description."""
    known = {
        "inventory_hostname": "pbx1",
        "groups": {"all": ["pbx1"], "pbx": ["pbx1"]},
        "hostvars": {"pbx1": {}},
        "ansible_facts": {},
        "ansible_check_mode": False,
        "labredes_secrets_dir": directory,
        **description,
    }
    loader = DataLoader()
    loader.set_basedir(str(rendering.ROOT))
    templar = Templar(loader, known)
    return lookup_loader.get("labredes.pbx.description_problems", loader=loader, templar=templar).run([], known)


def refusals(description: dict) -> list[str]:
    """The same as fast as can be: only what no single value shows is left to the lookup."""
    problems = unknown_variables(description, rendering.ROLES, RENAMED, ["ansible_user", "ansible_password"])
    for name, value in description.items():
        if name in OPTIONS and "{{" not in str(value):
            problems += CHECKER.problems(name, value, OPTIONS[name], name)
    return problems or described(description)


def every(options: dict, above: str = "") -> Iterator[tuple[str, dict]]:
    """(path, option) of every option, of the elements of lists and of the keys of dictionaries."""
    for name, option in options.items():
        path = above + name
        yield path, option
        if option["type"] == "list" and "options" not in option:
            yield (
                path + "[]",
                {"type": option["elements"], **{key: option[key] for key in ("choices",) if key in option}},
            )
        inside = path + ("[]." if option["type"] == "list" else ".")
        yield from every(option.get("options", {}), inside)


PATHS = dict(every(OPTIONS))


def bad_values(path: str, option: dict) -> strategies.SearchStrategy:
    """Values that an option cannot have, from its type, its choices, its range and its pattern."""
    rule, kind = CHECKER.rules.get(path, {}), option["type"]
    text = strategies.one_of(strategies.text(max_size=20), SPACES)
    wrong: list[strategies.SearchStrategy] = [strategies.none()]
    if kind != "list":
        wrong.append(strategies.lists(strategies.integers(), max_size=2))
    if kind != "dict":
        wrong.append(strategies.dictionaries(strategies.text(max_size=3), strategies.integers(), max_size=2))
    if kind in ("int", "float", "bool", "list", "dict") and "separator" not in rule:
        wrong.append(strategies.sampled_from(["soon", "", " 1", "1e3", "0x1f", "é", "-", "1,5", "y"]))
    if kind in ("int", "float", "list", "dict", "str"):
        wrong.append(strategies.booleans())
    if "min" in rule:
        wrong += [strategies.integers(max_value=int(rule["min"]) - 1), strategies.integers(min_value=rule["max"] + 1)]
    if "choices" in option and kind != "list":
        wrong.append(text.filter(lambda one: one not in map(str, option["choices"])))
    if "pattern" in rule:
        wrong.append(text.filter(lambda one: not re.fullmatch(rule["pattern"], one)))
    if rule.get("test") in ("network", "address"):
        wrong += [
            strategies.builds("{}.0.2.1".format, strategies.integers(256)),
            strategies.builds("192.0.2.0/{}".format, strategies.integers(33)),
            strategies.builds("2001:db8::/{}".format, strategies.integers(129)),
        ]
    if "secret" in rule:
        wrong.append(
            strategies.builds("kR7vTz0q{}Wm2xBn5c".format, strategies.sampled_from(" ;\"'\n,<>\\`$ñ#&|()[]{}"))
        )
        wrong.append(strategies.text("0123456789", max_size=3) | strategies.sampled_from(["password", "6001", "1234"]))
    if "options" in option and kind == "dict":
        wrong.append(strategies.fixed_dictionaries({"nmae": strategies.text(max_size=3)}))
    return strategies.one_of(wrong)


@pytest.mark.parametrize("path", sorted(path for path, option in PATHS.items() if option["type"] != "raw"))
def test_generated_bad_value_is_refused_by_name(path):
    @settings(max_examples=8, database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(bad_values(path, PATHS[path]))
    def refused(value):
        sentences = list(CHECKER.problems(path, value, PATHS[path], path, {"number": "6001", "name": "ana"}))
        assert sentences and all(sentence.startswith(path) for sentence in sentences), value
        assert not JARGON.search("".join(sentences)), sentences

    refused()


@pytest.mark.parametrize("path", sorted(path for path in PATHS if "min" in CHECKER.rules.get(path, {})))
def test_number_in_its_range_is_accepted(path):
    rule = CHECKER.rules[path]
    for value in (rule["min"], str(rule["min"]), rule["max"], str(rule["max"])):
        assert not list(CHECKER.problems(path, value, PATHS[path], path))


@pytest.mark.parametrize("path", sorted(path for path, option in PATHS.items() if option["type"] == "bool"))
def test_boolean_may_be_a_word(path):
    for value in ("no", "Yes", "false", "TRUE", "0", 1, "off", True):
        assert not list(CHECKER.problems(path, value, PATHS[path], path))
    for value in ("y", "t", "n", "f", 2, "maybe", ""):  # the filter bool takes y and t for false
        assert list(CHECKER.problems(path, value, PATHS[path], path))


def test_every_variable_has_a_rule():
    without = {
        path
        for path, option in PATHS.items()
        if option["type"] in ("str", "path", "int", "float") and "choices" not in option and path not in CHECKER.rules
    }
    assert without - {"firewall_rules[].protocol"} == set()


def test_every_rule_has_a_variable():
    paths = [re.sub(r"(\.\*).*", "", path) for path in CHECKER.rules]
    assert [path for path in paths if path not in PATHS] == []
    for path, rule in CHECKER.rules.items():
        assert set(rule) & {"min", "secret", "separator", "unique", "options"} or rule.get("cure"), path
        assert None not in rule.values(), path


@pytest.mark.parametrize("variable", sorted({name for name, _description in BAD.values()}))
def test_listed_bad_description_is_refused_by_name(variable):
    """But for those of files, which the playbook opens: test_bad_descriptions.py has them."""
    passed = []
    for name, description in BAD.values():
        if name == variable and not re.search(r"/no/such|\./nothing|/etc/hostname", str(description)):
            said = " ".join(refusals(description))
            if variable not in said or JARGON.search(said):
                passed.append((description, said))
    assert not passed


@pytest.mark.parametrize("host", ODD)
def test_odd_value_is_accepted(host):
    name, description = ODD[host]
    weak = description_problems.Checker(TABLE, str(description.get("labredes_allow_weak_secrets")) in ("yes", "True"))
    for variable, value in description.items():
        if variable in OPTIONS and "{{" not in str(value):
            assert list(weak.problems(variable, value, OPTIONS[variable], variable)) == []


def test_odd_descriptions_agree_with_themselves(tmp_path):
    """The whole ones, and the values that most others refer to."""
    referred = ("labredes_sip_", "labredes_rtp_", "labredes_language", "pbx_queues", "asterisk_package_r")
    chosen = [description for name, description in ODD.values() if not name or name.startswith(referred)]
    assert len(chosen) > 30
    refused = [(one, said) for one in chosen if (said := described(one, str(tmp_path)))]
    assert not refused


@pytest.mark.parametrize("allow_weak", [False, True])
def test_sentence_about_a_secret_does_not_show_it(allow_weak):
    checker, shown = description_problems.Checker(TABLE, allow_weak), 0
    for value in ("kR7vTz0q;Wm2xBn5c", 'kR7vTz0q"x', "kR7vTz0qWm2x\n", ["kR7vTz0qWm2xBn5c"], {"a": "kR7vTz0qWm2x"}):
        for path in (
            "labredes_secrets.*",
            "pbx_phones[].password",
            "pbx_phones[].pin",
            "asterisk_ami_users[].password",
        ):
            (sentence,) = checker.problems(path, value, {"type": "str"}, path, {"number": "6001", "name": "ana"})
            shown += "kR7vTz0q" in sentence
    for name in ("labredes_secrets", "pbx_phones", "asterisk_ari_users"):
        shown += "kR7v" in " ".join(checker.problems(name, "kR7vTz0qWm2xBn5c", OPTIONS[name], name))
    assert shown == 0
    misspelt = {**descriptions.ENTRIES["pbx_phones"], "nmae": "kR7vTz0qWm2xBn5c"}
    assert "kR7v" not in " ".join(checker.problems("pbx_phones", [misspelt], OPTIONS["pbx_phones"], "pbx_phones"))


def test_weak_secret_is_accepted_where_that_is_allowed():
    phone = {"number": "6001", "name": "Ana", "password": "1234", "pin": "1111"}
    strict, weak = description_problems.Checker(TABLE), description_problems.Checker(TABLE, True)
    option = OPTIONS["pbx_phones"]
    assert len(list(strict.problems("pbx_phones", [phone], option, "pbx_phones"))) == 2
    assert not list(weak.problems("pbx_phones", [phone], option, "pbx_phones"))
    assert list(weak.problems("pbx_phones", [{**phone, "password": "x;y", "pin": "1,2"}], option, "pbx_phones"))


@pytest.mark.parametrize(
    ("server", "description", "refused"),
    [
        ({}, {}, True),
        ({"postgresql_allowed_networks": ["192.0.2.0/24"]}, {}, False),
        ({"postgresql_extra_hba_rules": ["hostssl all all samenet scram-sha-256"]}, {}, False),
        ({}, {"labredes_database_host": "127.0.0.1"}, False),
        ({}, {"labredes_database_server": "pbx1"}, False),
    ],
)
def test_database_host_has_to_let_the_exchange_connect(server, description, refused):
    inventory = {
        "groups": {"all": ["pbx1", "db1"], "pbx": ["pbx1"], "databases": ["db1"]},
        "hostvars": {"pbx1": {}, "db1": {"ansible_host": "192.0.2.30", **server}},
    }
    problems = described({**inventory, **description})
    sentence = "db1 keeps the call records of this exchange and lets no other host connect; set "
    assert [problem.startswith(sentence) for problem in problems] == [True] * refused
