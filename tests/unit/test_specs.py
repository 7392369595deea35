"""The argument spec of each role describes all of its variables and agrees with its defaults and vars."""

from __future__ import annotations

import pytest
import rendering
import yaml

ROLES = sorted(path.name for path in rendering.ROLES.iterdir() if (path / "meta").is_dir())
PUBLIC = ("main", "validate")


def defaults_of(role: str) -> dict:
    """A role's defaults."""
    return rendering.defaults(role)


def specs_of(role: str) -> dict:
    """The argument specs of a role, by entry point."""
    return rendering.load(rendering.ROLES / role / "meta/argument_specs.yml").get("argument_specs", {})


def templated(value) -> bool:
    """Whether a default is computed at run time."""
    return "{{" in str(value)


def test_roles_are_found():
    assert len(ROLES) >= 5


@pytest.mark.parametrize("role", ROLES)
def test_validate_and_main_have_the_same_spec(role):
    specs = specs_of(role)
    # The shared role is validated once in a run; as a dependency its main would be validated in every play.
    assert role == "labredes" or specs["validate"] == specs["main"]
    assert specs["validate"].get("short_description")
    assert (rendering.ROLES / role / "tasks/validate.yml").exists()


@pytest.mark.parametrize("role", ROLES)
def test_spec_agrees_with_every_default(role):
    defaults, options = defaults_of(role), specs_of(role)["validate"].get("options", {})
    assert set(defaults) - set(options) == set(), "defaults without a spec"
    for name, option in options.items():
        if "default" in option:
            assert name in defaults, f"{name} has a default in the spec alone"
            assert option["default"] == defaults[name], name
        elif name in defaults:
            # A computed default and a long list are described in words.
            described = option["type"] in ("list", "dict") and "default" in str(option["description"])
            assert described or templated(defaults[name]), f"{name}: the spec does not mention its default"
        if option.get("required"):
            assert name not in defaults, f"{name} is required and has a default"


@pytest.mark.parametrize("role", ROLES)
def test_variable_names_begin_with_the_role(role):
    for name in [*defaults_of(role), *specs_of(role)["validate"].get("options", {})]:
        assert name.startswith(f"{role}_"), name
    private = rendering.ROLES / role / "vars"
    for path in private.rglob("*.yml"):
        for name in rendering.load(path):
            assert name.startswith(f"__{role}_"), f"{path.name}: {name}"


def every_option(options: dict, where: str):
    """(path, option) of every option, those of dictionaries in it included."""
    for name, option in options.items():
        yield f"{where}{name}", option
        yield from every_option(option.get("options", {}), f"{where}{name}.")


@pytest.mark.parametrize("role", ROLES)
def test_option_has_type_and_description(role):
    for path, option in every_option(specs_of(role)["validate"].get("options", {}), ""):
        assert option.get("type") in ("str", "int", "float", "bool", "list", "dict", "path", "raw"), path
        if option["type"] == "list":
            assert option.get("elements"), path
        text = option.get("description")
        text = " ".join(text) if isinstance(text, list) else text
        assert text and text.rstrip()[-1] in ".;)", f"{path}: {text!r} is not a sentence"
        assert set(option) <= {
            "type",
            "elements",
            "description",
            "default",
            "choices",
            "required",
            "options",
            "no_log",
            "version_added",
        }, path


@pytest.mark.parametrize("role", ROLES)
def test_role_has_its_files_and_dependencies(role):
    place = rendering.ROLES / role
    for name in ("meta/main.yml", "meta/argument_specs.yml", "README.md"):
        assert (place / name).exists(), name
    # The shared role is a dependency of the others: tasks of its own would run in every play.
    assert (place / "tasks/main.yml").exists() == (role != "labredes")
    shared = [] if role in ("labredes", "system") else [{"role": "labredes.pbx.labredes"}]
    assert rendering.load(place / "meta/main.yml")["dependencies"] == shared, "roles never call each other"


@pytest.mark.parametrize(
    ("variable", "filled_in"),
    [
        ("pbx_phones", "__pbx_phone_defaults"),
        ("pbx_queues", "__pbx_queue_defaults"),
        ("pbx_call_centres", "__pbx_call_centre_defaults"),
    ],
)
def test_nested_defaults_agree_with_the_spec(variable, filled_in, tmp_path):
    options = specs_of("pbx")["validate"]["options"][variable]["options"]
    nested = {name: option["default"] for name, option in options.items() if "default" in option}
    assert rendering.role_variables("pbx", rendering.FACTS["Debian 12"])[filled_in] == nested
    known = rendering.variables(rendering.FACTS["Debian 12"], {variable: [{"number": "8001"}]}, tmp_path, "pbx")
    assert rendering.evaluate(f"{{{{ __{variable} }}}}", known) == [{**nested, "number": "8001"}]


def tasks_in(items: list):
    """Every task of a list of tasks, including those of blocks."""
    for task in items or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_in(task.get(part))


@pytest.mark.parametrize("role", ROLES)
def test_role_notifies_no_handler(role):
    """A killed run forgets what was notified; roles compare what runs with what is on disk instead."""
    assert not (rendering.ROLES / role / "handlers").exists()
    for path in (rendering.ROLES / role / "tasks").glob("*.yml"):
        for task in tasks_in(yaml.safe_load(path.read_text())):
            assert "notify" not in task, f"{path.name}: {task['name']}"
