"""Each role's argument spec says all about its variables, and agrees with its defaults."""

from __future__ import annotations

import pytest
import rendering

ROLES = sorted(path.name for path in rendering.ROLES.iterdir() if (path / "meta").is_dir())
PUBLIC = ("main", "validate")


def defaults_of(role: str) -> dict:
    """A role's defaults."""
    return rendering.defaults(role)


def specs_of(role: str) -> dict:
    """What meta/argument_specs.yml says, by entry point."""
    return rendering.load(rendering.ROLES / role / "meta/argument_specs.yml").get("argument_specs", {})


def templated(value) -> bool:
    """Whether a default is worked out at run time."""
    return "{{" in str(value)


def test_there_are_roles():
    assert len(ROLES) >= 5


@pytest.mark.parametrize("role", ROLES)
def test_validation_has_the_same_spec_as_the_role(role):
    specs = specs_of(role)
    # The shared role is validated once in a run; as a dependency its main would be validated in every play.
    assert role == "labredes" or specs["validate"] == specs["main"]
    assert specs["validate"].get("short_description")
    assert (rendering.ROLES / role / "tasks/validate.yml").exists()


@pytest.mark.parametrize("role", ROLES)
def test_every_default_has_a_spec_that_agrees(role):
    defaults, options = defaults_of(role), specs_of(role)["validate"].get("options", {})
    assert set(defaults) - set(options) == set(), "defaults without a spec"
    for name, option in options.items():
        if "default" in option:
            assert name in defaults, f"{name} has a default in the spec alone"
            assert option["default"] == defaults[name], name
        elif name in defaults:
            # One that is worked out, or a long list, is told in words.
            told = templated(defaults[name]) or (
                "dict" in (option["type"], option.get("elements")) and "default" in str(option["description"])
            )
            assert told, f"{name} has the default {defaults[name]!r} and the spec does not say so"
        if option.get("required"):
            assert name not in defaults, f"{name} is required and has a default"


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_the_roles_name(role):
    for name in [*defaults_of(role), *specs_of(role)["validate"].get("options", {})]:
        assert name.startswith(f"{role}_"), name
    private = rendering.ROLES / role / "vars"
    for path in private.glob("*.yml"):
        for name in rendering.load(path):
            assert name.startswith(f"__{role}_"), f"{path.name}: {name}"


def every_option(options: dict, where: str):
    """(path, option) of every option, those of dictionaries in it included."""
    for name, option in options.items():
        yield f"{where}{name}", option
        yield from every_option(option.get("options", {}), f"{where}{name}.")


@pytest.mark.parametrize("role", ROLES)
def test_every_option_has_a_type_and_a_description(role):
    for path, option in every_option(specs_of(role)["validate"].get("options", {}), ""):
        assert option.get("type") in ("str", "int", "float", "bool", "list", "dict", "path", "raw"), path
        if option["type"] == "list":
            assert option.get("elements"), path
        text = option.get("description")
        text = " ".join(text) if isinstance(text, list) else text
        assert text and text.rstrip()[-1] in ".;)", f"{path}: {text!r} is no sentence"
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
def test_the_files_of_the_role_are_there(role):
    place = rendering.ROLES / role
    for name in ("meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml", "README.md"):
        assert (place / name).exists(), name
    shared = [] if role in ("labredes", "system") else [{"role": "labredes.pbx.labredes"}]
    assert rendering.load(place / "meta/main.yml")["dependencies"] == shared, "roles never call each other"
