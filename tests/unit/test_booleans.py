"""Boolean variables: the strings of `-e` and of ini inventories, such as "false", behave as the booleans."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest
import rendering
import yaml
from ansible.errors import AnsibleError
from jinja2 import nodes
from test_specs import ROLES, specs_of

# Jinja alone warns of the backslashes that Ansible escapes before.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

# Keywords of tasks whose value is an expression without braces.
CONDITIONS = {"when", "that", "until", "failed_when", "changed_when"}
STRINGS = {"false": False, "no": False, "0": False, "true": True}
FILES = sorted(
    path.relative_to(rendering.ROOT)
    for pattern in ("roles/*/*/**/*.yml", "roles/*/templates/**/*.j2", "playbooks/**/*.yml", "lab/*.yml")
    for path in rendering.ROOT.glob(pattern)
    if path.parent.name not in ("meta", "molecule")
)


def boolean_options() -> dict[str, str | None]:
    """Every boolean option of every role, and the list of dictionaries that contains it, if it is a nested one."""
    found: dict[str, str | None] = {}
    for role in ROLES:
        for name, option in specs_of(role)["validate"].get("options", {}).items():
            if option["type"] == "bool":
                found[name] = None
            found.update({key: name for key, nested in option.get("options", {}).items() if nested["type"] == "bool"})
    return found


BOOLEANS = boolean_options()
VARIABLES = {name for name, container in BOOLEANS.items() if container is None}
KEYS = set(BOOLEANS) - VARIABLES


def sources(value, key: str = ""):
    """Every template in a YAML document."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from sources(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from sources(item, key)
    elif isinstance(value, str) and ("{{" in value or "{%" in value):
        yield value
    elif isinstance(value, str) and key in CONDITIONS:
        yield "{{ " + value + " }}"


def uncast_in(path: Path, text: str) -> list[str]:
    """The boolean options that a file uses without the filter bool."""
    templates = [text] if path.suffix == ".j2" else sources(yaml.safe_load(text))
    return [name for template in templates for name in uncast(jinja2.Environment().parse(template))]


def uncast(node: nodes.Node, cast: bool = False) -> list[str]:
    """The boolean options below a node; `cast` tells whether a filter bool is applied to its value."""
    found = []
    if not cast:
        found += [node.name] if isinstance(node, nodes.Name) and node.name in VARIABLES else []
        found += [node.attr] if isinstance(node, nodes.Getattr) and node.attr in KEYS else []
        constant = node.arg if isinstance(node, nodes.Getitem) else None
        found += [constant.value] if isinstance(constant, nodes.Const) and constant.value in KEYS else []
    if isinstance(node, nodes.Filter) and node.name in ("selectattr", "rejectattr", "map"):
        words = [item.value for item in [*node.args, *(pair.value for pair in node.kwargs)] if hasattr(item, "value")]
        converts = "defined" in words or ("truthy" in words and True in words)  # convert_bool=true
        found += [word for word in words if word in KEYS and not converts]
    for child in node.iter_child_nodes():
        subject = isinstance(node, (nodes.Filter, nodes.Test)) and child is node.node
        keeps = subject and (node.name in ("bool", "defined") or (node.name == "default" and cast))
        found += uncast(child, keeps)
    return found


def test_boolean_options_are_found():
    assert {"firewall_enabled", "asterisk_radius", "pbx_voicemail_mail_attach"} <= VARIABLES
    assert {"mailbox", "webrtc", "read_only"} <= KEYS and len(FILES) > 100


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{{ firewall_enabled }}", ["firewall_enabled"]),
        ("{{ not firewall_enabled and firewall_enabled | bool }}", ["firewall_enabled"]),
        ("{{ firewall_enabled | default(true) }}", ["firewall_enabled"]),
        ("{{ firewall_enabled | ternary(1, 0) | bool }}", ["firewall_enabled"]),
        ("{% if phone.webrtc or phone['mailbox'] %}{% endif %}", ["webrtc", "mailbox"]),
        ("{{ pbx_phones | selectattr('mailbox') | map(attribute='webrtc') }}", ["webrtc", "mailbox"]),
        ("{{ pbx_phones | selectattr('mailbox', 'truthy') }}", ["mailbox"]),
        ("{{ pbx_phones | selectattr('mailbox', 'truthy', convert_bool=true) }}", []),
        ("{{ firewall_enabled | default(true) | bool or (phone.webrtc | bool) }}", []),
        ("{{ pbx_phones | selectattr('mailbox', 'defined') if firewall_enabled is defined }}", []),
    ],
)
def test_use_without_cast_is_detected(template, found):
    assert uncast(jinja2.Environment().parse(template)) == found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_boolean_options_are_cast(path):
    assert uncast_in(path, (rendering.ROOT / path).read_text()) == []


def test_removal_of_any_cast_is_detected():
    casts = 0
    for path in FILES:
        text = (rendering.ROOT / path).read_text()
        without_all = uncast_in(path, re.sub(r" \| bool\b", "", text))
        without_one = [
            name
            for cast in re.finditer(r" \| bool\b", text)
            for name in uncast_in(path, text[: cast.start()] + text[cast.end() :])
        ]
        assert sorted(without_one) == sorted(without_all), path
        casts += len(without_one)
    assert casts > len(BOOLEANS)


def outcome(value, secrets: Path) -> dict:
    """Every rendered template and every variable of every role, with all boolean options set to a value."""
    given: dict = dict.fromkeys(VARIABLES, value)
    for key in KEYS:
        container = BOOLEANS[key]
        entries = given.get(container) or rendering.UNUSUAL.get(container) or [{"name": "a", "number": "200"}]
        given[container] = [{**entry, key: value} for entry in entries]
    results = {}
    for role in ROLES:
        known = rendering.variables(rendering.FACTS["Debian 12"], {**rendering.UNUSUAL, **given}, secrets, role)
        for template in sorted((rendering.ROLES / role).glob("templates/**/*.j2")):
            results[template] = rendering.render(template, known)
        for name in set(rendering.role_variables(role, rendering.FACTS["Debian 12"])) - set(given):
            try:
                results[role, name] = rendering.evaluate("{{ " + name + " }}", known)
            except AnsibleError as error:  # of a variable that needs what a task of the role sets
                results[role, name] = str(error)
    return results


# A list with the defaults filled in keeps the strings; its users cast them.
KEPT = {("pbx", "__pbx_phones"), ("events", "__events_phones")}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The outcomes for both booleans."""
    secrets = tmp_path_factory.mktemp("secrets")
    with pytest.MonkeyPatch.context() as patch:
        # Another run may download files into the controller's own meanwhile.
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield {boolean: outcome(boolean, secrets) for boolean in (True, False)} | {"secrets": secrets}


def test_boolean_options_have_an_effect(outcomes):
    differ = {key for key, result in outcomes[True].items() if result != outcomes[False][key]}
    names = {key.name for key in differ if isinstance(key, Path)}
    assert {"ari.conf.j2", "cel.conf.j2", "pjsip.conf.j2", "voicemail.conf.j2", "modules.conf.j2"} <= names
    assert ("asterisk", "__asterisk_modules") in differ


@pytest.mark.parametrize("text", STRINGS)
def test_string_has_the_effect_of_the_boolean(outcomes, text):
    results = outcome(text, outcomes["secrets"])
    assert {
        key for key, result in results.items() if result != outcomes[STRINGS[text]][key] and key not in KEPT
    } == set()
