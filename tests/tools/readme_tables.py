#!/usr/bin/env python3
"""Writes each role's table of variables (`make docs`); aar-doc loses computed defaults and splits nested options.

aar-doc 2.4.0 also repeats every table for the entry point `validate`, links nested options to the wrong one of the
two, and lists choices apart from the option they belong to.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
BEGIN, END = "<!-- variables:begin -->", "<!-- variables:end -->"
LONGEST_DEFAULT = 60


def prose(description: str | list[str]) -> str:
    """A description as Markdown on one line."""
    text = " ".join(description if isinstance(description, list) else [description])
    return re.sub(r"\b[OVCPB]\(([^()]*)\)", r"`\1`", " ".join(text.split())).replace("|", "\\|")


def code(value: object) -> str:
    """A value as YAML writes it on one line."""
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    line = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return "`" + line.removesuffix("\n").removesuffix("\n...") + "`"


def kind(option: dict) -> str:
    """Type and choices."""
    name = f"list of {option['elements']}" if option["type"] == "list" else option["type"]
    return f"{name}: {', '.join(code(choice) for choice in option['choices'])}" if "choices" in option else name


def default(name: str, option: dict, defaults: dict) -> str:
    """The default, or why there is none."""
    if option.get("required"):
        return "required"
    if "default" in option:
        written = code(option["default"])
        return written if len(written) <= LONGEST_DEFAULT else "see `defaults/`"
    return "computed" if name in defaults else ""


def rows(options: dict, defaults: dict, above: str = "") -> list[str]:
    """A line of the table for each option, those inside it after it."""
    lines = []
    for name, option in options.items():
        cells = [f"`{above}{name}`", kind(option), default(name, option, defaults), prose(option["description"])]
        lines.append("| " + " | ".join(cells) + " |")
        inside = above + name + ("[]." if option["type"] == "list" else ".")
        lines += rows(option.get("options", {}), {}, inside)
    return lines


def table(role: Path) -> str:
    """The table of a role's variables."""
    spec = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["validate"]
    files = sorted((role / "defaults").rglob("*.yml"))
    defaults = {name: value for path in files for name, value in yaml.safe_load(path.read_text()).items()}
    lines = [
        "| Variable | Type | Default | Description |",
        "|---|---|---|---|",
        *rows(spec.get("options", {}), defaults),
    ]
    return "\n".join(lines)


def readme(role: Path) -> str:
    """A role's README with the table as it ought to be. Raises ValueError when it has no place for it."""
    text = (role / "README.md").read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{role.name}/README.md lacks {BEGIN} or {END}; add both lines where the table belongs")
    return f"{before}{BEGIN}\n{table(role)}\n{END}{after}"


def main() -> None:
    """Write every README that is not as it ought to be."""
    for spec in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        role = spec.parent.parent
        path = role / "README.md"
        wanted = readme(role)
        if path.read_text() != wanted:
            path.write_text(wanted)
            print(f"{path.relative_to(ROLES.parent)} written")


if __name__ == "__main__":
    main()
