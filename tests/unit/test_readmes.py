"""Each role's README says what its argument spec says."""

from __future__ import annotations

import importlib.util

import pytest
import rendering

place = rendering.ROOT / "tests/tools/readme_tables.py"
spec = importlib.util.spec_from_file_location("readme_tables", place)
readme_tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme_tables)


@pytest.mark.parametrize("role", sorted(path.name for path in rendering.ROLES.iterdir() if path.is_dir()))
def test_the_table_of_variables_is_up_to_date(role):
    assert (rendering.ROLES / role / "README.md").read_text() == readme_tables.readme(rendering.ROLES / role), (
        "run `make docs`"
    )


def test_a_table_says_type_choices_default_and_description(tmp_path):
    for name, text in {
        "meta/argument_specs.yml": "argument_specs: {validate: {options: {x_a: {type: str, choices: [b, c], default: b, "
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
