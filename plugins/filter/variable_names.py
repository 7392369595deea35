# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter unknown_variables: reports renamed and misspelt variables, which Ansible itself accepts without a word."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ansible.module_utils.common.yaml import yaml_load

# No other collection has variables with these prefixes.
OWN_PREFIXES = ("labredes_", "pbx_", "preflight_", "asterisk_package_")


def unknown_variables(names, roles, renamed, ignored=()):
    """One sentence for each name that was renamed or is misspelt; a name of another collection passes.

    ``roles`` is the directory of the roles, ``renamed`` maps an old name to its successor, ``ignored`` names pass.
    """
    known = set()
    for path in Path(roles).glob("*/meta/argument_specs.yml"):
        known.update(yaml_load(path.read_text())["argument_specs"]["validate"].get("options", {}))
    problems = []
    for name in sorted(set(names) - known - set(ignored)):
        if name in renamed:
            problems.append(f"{name} is no longer a variable; use {renamed[name]}.")
        elif name.startswith(OWN_PREFIXES) or any(one_edit_apart(name, variable) for variable in known):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            problems.append(f"{name} is not a variable of this collection{hint}")
    return problems


def one_edit_apart(one, other):
    """Whether inserting, deleting, changing or swapping one letter turns one name into the other."""
    start = len(os.path.commonprefix([one, other]))
    one, other = one[start:], other[start:]
    return one[1:] in (other, other[1:]) or one == other[1:] or (one[:2], one[2:]) == (other[1::-1], other[2:])


class FilterModule:
    """The filter, by name."""

    def filters(self):
        """The name that templates use."""
        return {"unknown_variables": unknown_variables}
