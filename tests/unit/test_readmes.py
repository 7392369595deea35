"""The tables in the roles' READMEs are current, and the pages at the top name every role, step and renamed variable."""

from __future__ import annotations

import importlib.util
import re

import pytest
import rendering

PAGES = [*rendering.ROOT.glob("*.md"), *rendering.ROOT.glob("docs/*.md"), *rendering.ROLES.glob("*/README.md")]
path = rendering.ROOT / "tests/tools/readme_tables.py"
spec = importlib.util.spec_from_file_location("readme_tables", path)
readme_tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme_tables)


@pytest.mark.parametrize("role", sorted(path.name for path in rendering.ROLES.iterdir() if path.is_dir()))
def test_table_of_variables_is_current(role):
    assert (rendering.ROLES / role / "README.md").read_text() == readme_tables.readme(rendering.ROLES / role), (
        "run `make docs`"
    )


def test_table_has_type_choices_default_description(tmp_path):
    for name, text in {
        "meta/argument_specs.yml": "argument_specs: {validate: {options: {x_a: {type: str, choices: [b, c], "
        "default: b, "
        "description: ['One | two, see O(x_b).', 'V(c) is C(d e).']}, x_b: {type: list, elements: dict, "
        "description: 'Some.', options: {n: {type: int, required: true, description: 'N.'}}}}}}",
        "defaults/main.yml": "x_a: b\nx_b: '{{ y }}'\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    assert readme_tables.table(tmp_path).splitlines()[2:] == [
        r"| `x_a` | str: `b`, `c` | `b` | One \| two, see `x_b`. `c` is `d e`. |",
        "| `x_b` | list of dict | computed | Some. |",
        "| `x_b[].n` | int | required | N. |",
    ]


def test_readme_lists_every_role():
    listed = re.findall(
        r"^\| \[(\w+)\]\(roles/\1/README\.md\) \|", (rendering.ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(listed) == sorted(path.name for path in rendering.ROLES.iterdir() if path.is_dir())


def test_readme_lists_the_playbooks_in_order():
    site = [play["import_playbook"] for play in rendering.load(rendering.ROOT / "playbooks/site.yml")]
    text = (
        (rendering.ROOT / "README.md").read_text().split("## Playbooks, in order")[1].split("`build_start` starts")[0]
    )
    assert re.findall(r"\w+", text) == [name.removesuffix(".yml") for name in site]


def test_changelog_lists_every_renamed_variable():
    renamed = rendering.load(rendering.ROLES / "labredes/vars/renamed.yml")["__labredes_renamed"]
    text = (rendering.ROOT / "CHANGELOG.md").read_text().replace("`", "")
    assert [f"| {old} | {new} |" for old, new in renamed.items() if f"| {old} | {new} |" not in text] == []


def test_every_link_of_the_pages_leads_to_a_file():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert links
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_pages_are_wrapped_at_120_columns():
    longer = [
        f"{page.relative_to(rendering.ROOT)}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if len(line) > 120 and not line.startswith("|")
    ]
    assert longer == []
