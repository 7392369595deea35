# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup description_problems: what is wrong with a host's variables, by the roles' specs and one table of rules."""

from __future__ import annotations

DOCUMENTATION = """
name: description_problems
short_description: One sentence for each wrong variable of a host
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Compares every variable of the collection with the type, the choices and the keys in its role's argument spec, and
    with the ranges, patterns and cross references in C(roles/labredes/vars/rules.yml).
  - A sentence names the variable, its value and the cure; never the value of a secret.
options:
  _terms: {description: Names of variables to check; all of them by default.}
"""

RETURN = '_raw: {description: "Sentences; none for a right description.", type: list, elements: str}'

import difflib
import ipaddress
import json
import re
import zoneinfo
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.lookup import LookupBase
from ansible_collections.labredes.pbx.plugins.lookup.secret import fault

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19, which renders only what it has read itself, or what is marked so

    def trust_as_template(value):
        """The text as it is."""
        return value


ROLES = Path(__file__).resolve().parents[2] / "roles"
WORDS = {"true", "yes", "on", "1", "false", "no", "off", "0"}  # those that the filter bool understands
SUFFIXES = {suffix: 1024**power for power, suffix in enumerate("KMGTPE", 1)}
NAMES = {
    "str": "text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a dictionary, as name: value lines",
}


def trusted(value: Any) -> Any:
    """Content of a file of the collection, whose texts may be rendered as templates."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, list):
        return [trusted(one) for one in value]
    return {name: trusted(one) for name, one in value.items()} if isinstance(value, dict) else value


def load(path: Path) -> dict[str, Any]:
    """A YAML file of the collection."""
    return yaml_load(path.read_text()) or {}


def specs() -> dict[str, dict]:
    """The options of every role, by the name of the variable."""
    paths = sorted(ROLES.glob("*/meta/argument_specs.yml"))
    return {name: one for path in paths for name, one in load(path)["argument_specs"]["validate"]["options"].items()}


def defaults(kind: str) -> dict[str, Any]:
    """The defaults, or the private variables (vars), of every role that no distribution decides."""
    paths = [*ROLES.glob(f"*/{kind}/main.yml"), *ROLES.glob(f"*/{kind}/main/*.yml")]
    return {name: trusted(value) for path in sorted(paths) for name, value in load(path).items()}


def shown(value: Any, kind: str = "str") -> str:
    """A value as a sentence quotes it; only its type where it contains others, since they may be secrets."""
    if isinstance(value, (list, Mapping)):
        return "a list" if isinstance(value, list) else "a dictionary"
    if kind in ("list", "dict"):
        return "a single value"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) < 80 else text[:76] + '…"'


def is_of_type(value: Any, kind: str) -> bool:
    """Whether a value can be used as one of this type; a number may be a string, as -e and ini inventories give it."""
    if kind == "bool":
        return isinstance(value, bool) or str(value).lower() in WORDS
    if kind in ("list", "dict"):
        return isinstance(value, list if kind == "list" else Mapping)
    pattern = {"int": r"-?(0|[1-9][0-9]*)", "float": r"-?[0-9]+(\.[0-9]+)?"}.get(kind, r"(?s:.*)")
    single = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return kind == "raw" or (single and re.fullmatch(pattern, str(value)) is not None)


def network(text: str, rule: dict) -> str | None:
    """The cure of what is not a network, None for one; likewise the functions below."""
    try:
        known = ipaddress.ip_network(text)
        if text in ("0.0.0.0", "::"):
            return f"{text}/0 for every address"
        # Python also takes 0.0.0.255 for a mask, and 08 for a length.
        exact = text.partition("/")[2] in ("", str(known.prefixlen), str(known.netmask))
        return None if exact else f"{known} for that network"
    except ValueError:
        try:
            meant = ipaddress.ip_interface(text)
        except ValueError:
            return rule["cure"]
        return f"{meant.network} for the network, or {meant.ip} for the one address"
    return None


def address(text: str, rule: dict) -> str | None:
    """The cure of what is not an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return rule["cure"]
    return None


def alternative_name(text: str, rule: dict) -> str | None:
    """The cure of an address in a certificate that is not one."""
    return address(text[3:], rule) if text.startswith("IP:") else None


def time_zone(text: str, rule: dict) -> str | None:
    """The cure of a name that the tz database of the controller does not have, if it has any."""
    known = zoneinfo.available_timezones()
    return rule["cure"] if known and text not in known else None


def ports(text: str, rule: dict) -> str | None:
    """The cure of what is neither a port nor a range of ports."""
    ends = [int(end) for end in text.split("-")]
    return None if all(0 < end < 65536 for end in ends) and ends == sorted(ends) else rule["cure"]


def size(text: str, rule: dict) -> str | None:
    """The cure of an amount of memory that is too small, or of a percentage that is none."""
    number, suffix = float(text.rstrip("KMGTPE%") or 0), text[-1:]
    if suffix == "%":
        return None if 1 <= number <= 100 else rule["cure"]
    return None if not text or number * SUFFIXES.get(suffix, 1) >= 1024**2 * rule["mebibytes"] else rule["cure"]


def text_bytes(text: str, rule: dict) -> str | None:
    """The cure of a text that a call record cannot hold, or that Asterisk would read without its outer spaces."""
    return None if 0 < len(text.encode()) < 80 and text == text.strip() else rule["cure"]


TESTS = {one.__name__: one for one in (network, address, alternative_name, time_zone, ports, size, text_bytes)}


class Checker:
    """Checks values against the options of argument specs and the rules of the table."""

    def __init__(self, table: dict[str, Any], allow_weak: bool = False):
        self.rules: dict[str, dict] = {}
        for path, rule in table["__labredes_rules"].items():
            rule = {"form": rule} if isinstance(rule, str) else rule
            self.rules[path] = {**table["__labredes_forms"].get(rule.get("form"), {}), **rule}
        self.allow_weak = allow_weak

    def problems(self, path: str, value: Any, option: dict, key: str, entry: Mapping | None = None) -> Iterator[str]:
        """Sentences about a value. `path` is its place, `key` that of its rule, and `entry` is what contains it."""
        rule, kind = self.rules.get(key, {}), option["type"]
        value = to_text(value) if hasattr(value, "__ENCRYPTED__") else value
        if "secret" in rule:
            last = {"key": path.rpartition(".")[2], **(entry or {})}
            name = re.sub(r"{(\w+)}", lambda found: str(last.get(found[1])), rule["secret"])
            reason = fault(name, value, name.startswith("mailbox_"), self.allow_weak)
            yield from [f"{path} {reason}."] if reason else []
        elif value is None:
            yield f"{path} is empty; give {self.wanted(option, rule)}, or leave it out."
        elif kind == "list" and isinstance(value, str) and "separator" in rule:
            yield from self.list_problems(path, value.split(rule["separator"]), option, key)
        elif not is_of_type(value, kind):
            yield f"{path} is {shown(value, kind)}; give {self.wanted(option, rule)}."
        elif kind == "list":
            yield from self.list_problems(path, value, option, key)
        elif kind == "dict":
            yield from self.dict_problems(path, value, option, key)
        elif cure := self.cure(value, option, rule):
            yield f"{path} is {shown(value)}; give {cure}."

    def wanted(self, option: dict, rule: dict) -> str:
        """What a value of this option is to be."""
        if "choices" in option and option["type"] != "list":
            return "one of " + ", ".join(map(str, option["choices"]))
        if "min" in rule:
            return f"{rule.get('noun') or 'a number of ' + rule['unit']} from {rule['min']} to {rule['max']}"
        return rule.get("cure") or NAMES[option["type"]]

    def cure(self, value: Any, option: dict, rule: dict) -> str | None:
        """What to give instead of a value that is no choice, out of its range or not of its form."""
        text = str(value)
        if "choices" in option and text not in map(str, option["choices"]):
            return self.wanted(option, rule)
        if "min" in rule and not rule["min"] <= float(text) <= rule["max"]:
            return self.wanted(option, rule)
        if "pattern" in rule and not re.fullmatch(rule["pattern"], text):
            return rule["cure"]
        return TESTS[rule["test"]](text, rule) if "test" in rule else None

    def list_problems(self, path: str, values: list, option: dict, key: str) -> Iterator[str]:
        """Sentences about a list and its elements."""
        rule = self.rules.get(key, {})
        element = {**option, "type": option.get("elements", "raw")}
        for index, value in enumerate(values):
            yield from self.problems(f"{path}[{index}]", value, element, f"{key}[]")
        if len(values) < rule.get("least", 0):
            yield f"{path} is empty; give {rule['cure']}."
        own = rule.get("unique")
        names = [str(value.get(own) if isinstance(value, Mapping) else value) for value in values] if own else []
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            yield f"{path} has {shown(name)} twice; remove one."

    def dict_problems(self, path: str, values: Mapping, option: dict, key: str) -> Iterator[str]:
        """Sentences about a dictionary, its keys and their values."""
        options, rule, every = option.get("options"), self.rules.get(key, {}), self.rules.get(f"{key}.*", {})
        for name, value in values.items():
            if options is not None and name not in options:
                near = difflib.get_close_matches(str(name), options, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it may have {', '.join(options)}."
                yield f"{path} has the unknown key {shown(name)}; {hint}"
            elif options is not None:
                yield from self.problems(f"{path}.{name}", value, options[name], f"{key}.{name}", values)
            elif "keys" in rule and not re.fullmatch(rule["keys"], str(name)):
                yield f"{path} has the key {shown(name)}; give {rule['cure']}."
            elif every:
                yield from self.problems(f"{path}.{name}", value, {"type": "str", **every}, f"{key}.*", values)
        for name, option in (options or {}).items():
            if option.get("required") and name not in values:
                yield f"{path} has no {name}; give {self.wanted(option, self.rules.get(f'{key}.{name}', {}))}."
        if len(values) < rule.get("least", 0):
            yield f"{path} is empty; give {rule['cure']}."


class LookupModule(LookupBase):
    """The lookup plugin; see DOCUMENTATION."""

    def run(self, terms, variables=None, **kwargs):
        """The sentences about a host; cross references only where each variable is right by itself."""
        table, options, own = load(ROLES / "labredes/vars/rules.yml"), specs(), defaults("defaults")
        # Validation generates no secrets: the host may have them already.
        known = {**defaults("vars"), **trusted(table), **own, **(variables or {}), "__labredes_generate": False}
        before = self._templar.available_variables
        self._templar.available_variables = known
        try:
            return self.problems(known, own, options, table)
        finally:
            self._templar.available_variables = before

    def problems(self, known: dict, own: dict, options: dict, table: dict) -> list[str]:
        """The sentences about variables whose values are known; ``own`` are the defaults."""
        given: list[str] = []
        computed: list[str] = []
        weak, _problem = self.rendered("labredes_allow_weak_secrets", known["labredes_allow_weak_secrets"])
        checker = Checker(table, str(weak).lower() in ("true", "yes", "on", "1"))
        for name, option in options.items():
            problems = given if known.get(name) != own.get(name) else computed
            if name not in known or (problems is computed and "secret" in checker.rules.get(name, {})):
                continue
            value, problem = self.rendered(name, known[name])
            problems += [problem] if problem else checker.problems(name, value, option, name)
        return given or self.crossed(trusted(table["__labredes_cross_references"])) or computed

    def rendered(self, name: str, value: Any) -> tuple[Any, str | None]:
        """The value of a variable, or a sentence about why it has none; the template itself may contain a secret."""
        try:
            return self._templar.template(value), None
        except AnsibleError as error:
            undefined = re.search(r"'([\w.]+)' is undefined|has no attribute '(\w+)'", str(error))
            what = f"uses {undefined[1] or undefined[2]}, which is not defined" if undefined else "cannot be evaluated"
            return None, f"{name} {what}; correct its template."

    def crossed(self, references: list[str]) -> list[str]:
        """The sentences of the cross references; each is a template that is empty where they agree."""
        problems = []
        for reference in references:
            try:
                problems.append(" ".join(str(self._templar.template(reference) or "").split()))
            except (AnsibleError, TypeError, ValueError):
                names = sorted(set(re.findall(r"\b(?!labredes\.)[a-z]\w*_\w+", reference)) & set(specs()))
                problems.append(f"{', '.join(names)} cannot be compared; correct their values.")
        return [problem for problem in problems if problem]
