# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup description_problems: what is wrong with the variables of a host, by the roles' specs and one table of rules."""

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


def load(path: Path) -> dict[str, Any]:
    """A YAML file."""
    return yaml_load(path.read_text()) or {}


def specs() -> dict[str, dict]:
    """The options of every role, by the name of the variable."""
    paths = sorted(ROLES.glob("*/meta/argument_specs.yml"))
    return {name: one for path in paths for name, one in load(path)["argument_specs"]["validate"]["options"].items()}


def defaults(kind: str) -> dict[str, Any]:
    """The defaults, or the private variables (vars), of every role that no distribution decides."""
    paths = [*ROLES.glob(f"*/{kind}/main.yml"), *ROLES.glob(f"*/{kind}/main/*.yml")]
    return {name: value for path in sorted(paths) for name, value in load(path).items()}


def shown(value: Any) -> str:
    """A value as a sentence quotes it."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) < 80 else text[:76] + '…"'


def is_of_type(value: Any, kind: str) -> bool:
    """Whether a value can be used as one of this type; a number may be a string, as -e and ini inventories give it."""
    if kind == "bool":
        return isinstance(value, bool) or str(value).lower() in WORDS
    if kind in ("list", "dict"):
        return isinstance(value, list if kind == "list" else Mapping)
    pattern = {"int": r"-?(0|[1-9][0-9]*)", "float": r"-?[0-9]+(\.[0-9]+)?"}.get(kind, r"(?s:.*)")
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and bool(re.fullmatch(pattern, str(value)))


def network(text: str, rule: dict) -> str | None:
    """The cure of what is not a network, None for one; likewise the functions below."""
    try:
        ipaddress.ip_network(text)
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
        return ipaddress.ip_address(text) and None
    except ValueError:
        return rule["cure"]


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
    """Checks values against specs and rules."""

    def __init__(self, table: dict[str, Any], allow_weak: bool):
        forms = table["__labredes_forms"]
        self.rules: dict[str, dict] = {}
        for path, rule in table["__labredes_rules"].items():
            rule = {"form": rule} if isinstance(rule, str) else rule
            self.rules[path] = {**forms.get(rule.get("form"), {}), **rule}
        self.allow_weak = allow_weak

    def problems(self, path: str, value: Any, option: dict, key: str, entry: Any = None) -> Iterator[str]:
        """Sentences about a value. `path` is its place, `key` the same without indices; `entry` is what contains it."""
        rule, kind = self.rules.get(key, {}), option["type"]
        value = to_text(value) if hasattr(value, "__ENCRYPTED__") else value
        if "secret" in rule:
            name = re.sub(r"{(\w+)}", lambda found: str((entry or {}).get(found[1], path.partition(".")[2])), rule["secret"])
            reason = fault(name, value, name.startswith("mailbox_"), self.allow_weak)
            yield from [f"{path} {reason}."] if reason else []
        elif value is None:
            yield f"{path} is empty; give {self.wanted(option, rule)}, or leave it out."
        elif kind == "list" and isinstance(value, str) and rule.get("separator"):
            yield from self.problems(path, value.split(rule["separator"]), option, key)
        elif kind != "raw" and not is_of_type(value, kind):
            held = "a list" if isinstance(value, list) else "a dictionary" if isinstance(value, Mapping) else shown(value)
            yield f"{path} is {held if kind not in ('list', 'dict') or 'a ' in held[:2] else 'a single value'}; give {self.wanted(option, rule)}."
        elif kind == "list":
            yield from self.list_problems(path, value, option, key)
        elif kind == "dict":
            yield from self.dict_problems(path, value, option, key)
        elif "choices" in option and str(value) not in map(str, option["choices"]):
            yield f"{path} is {shown(value)}; give {self.wanted(option, rule)}."
        elif cure := self.cure(value, option, rule):
            yield f"{path} is {shown(value)}; give {cure}."

    def wanted(self, option: dict, rule: dict) -> str:
        """What a value of this option is to be."""
        if "choices" in option and option["type"] != "list":
            return "one of " + ", ".join(map(str, option["choices"]))
        if "min" in rule:
            noun = rule.get("noun") or f"a number of {rule['unit']}"
            return f"{noun} from {rule['min']} to {rule['max']}"
        return rule.get("cure") or NAMES[option["type"]]

    def cure(self, value: Any, option: dict, rule: dict) -> str | None:
        """What to give instead of a value that is out of its range, or that has not its form."""
        text = str(value)
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
        for name in options or {}:
            if options[name].get("required") and name not in values:
                yield f"{path} has no {name}; give {self.wanted(options[name], self.rules.get(f'{key}.{name}', {}))}."
        if len(values) < rule.get("least", 0):
            yield f"{path} is empty; give {rule['cure']}."


class LookupModule(LookupBase):
    """The lookup plugin; see DOCUMENTATION."""

    def run(self, terms, variables=None, **kwargs):
        """The sentences about a host; cross references only where each variable is right by itself."""
        table, options, own = load(ROLES / "labredes/vars/rules.yml"), specs(), defaults("defaults")
        # Validation generates no secrets: the host may have them already.
        known = {**defaults("vars"), **table, **own, **(variables or {}), "__labredes_generate": False}
        with self._templar.set_temporary_context(available_variables=known):
            weak, _problem = self.rendered("labredes_allow_weak_secrets", known["labredes_allow_weak_secrets"])
            checker = Checker(table, str(weak).lower() in ("true", "yes", "on", "1"))
            given: list[str] = []
            computed: list[str] = []
            for name in [name for name in options if name in known]:
                problems = given if known[name] != own.get(name) else computed
                if problems is computed and "secret" in checker.rules.get(name, {}):
                    continue
                value, problem = self.rendered(name, known[name])
                problems += [problem] if problem else checker.problems(name, value, options[name], name)
            return given or self.crossed(table["__labredes_cross_references"]) or computed

    def rendered(self, name: str, value: Any) -> tuple[Any, str | None]:
        """The value of a variable, or a sentence about why it has none. A message could quote a secret: only names."""
        try:
            return self._templar.template(value), None
        except AnsibleError as error:
            undefined = re.search(r"'([\w.]+)' is undefined|has no attribute '(\w+)'", str(error))
            fault_of_secret = re.search(r"original message: (\S+: (labredes_secrets\.|[Tt]he secret).*?\.)(\s|$)", str(error))
            if fault_of_secret:
                return None, fault_of_secret[1]
            what = f"uses {undefined[1] or undefined[2]}, which is not defined" if undefined else "cannot be evaluated"
            return None, f"{name} {what}; correct its template."

    def crossed(self, references: list[str]) -> list[str]:
        """The sentences of the cross references; each is a template that is empty where they agree."""
        return [text for text in (str(self._templar.template(one)).strip() for one in references) if text]
