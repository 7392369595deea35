"""Cross-checks of the exchange's description, made before any host is touched."""
from __future__ import annotations

import difflib
import re
from pathlib import Path

import yaml

DOCUMENTATION = r"""
name: exchange_problems
short_description: What is wrong with the description of an exchange
version_added: 0.1.0
author: labredes.pbx (@labredes)
description:
  - Takes the phones (O(_input)) and everything else that has a number, and returns one sentence for
    each contradiction; an empty list means that the description holds.
options:
  _input:
    description: The phones, as in C(pbx_phones).
    type: list
    elements: dict
    required: true
  conferences:
    description: Numbers of the conferences, as in C(pbx_conferences).
    type: list
    elements: str
"""

NUMBER = re.compile(r"[0-9]{2,10}\Z")
# What would end a value, start a comment, or be expanded in Asterisk's configuration files.
BREAKS = re.compile(r'["\\;<>\[\]{}$`\x00-\x1f\x7f]')
NAME_LENGTH = 79  # what a call record's column holds is 80, with its end


def exchange_problems(phones, conferences=()):
    """One sentence for each thing that is wrong, naming the entry and the cure."""
    problems = []
    owners = {}
    named = [(f"pbx_phones[{place}]", phone["number"]) for place, phone in enumerate(phones)]
    named += [(f"pbx_conferences[{place}]", number) for place, number in enumerate(conferences)]
    for entry, number in named:
        number = str(number)
        if not NUMBER.match(number):
            problems.append(f"{entry}: {number!r} is no number that can be dialled; give 2 to 10 digits, in quotes.")
        elif number in owners:
            problems.append(f"{entry}: {number} is taken by {owners[number]}; give it another number.")
        else:
            owners[number] = entry
    for place, phone in enumerate(phones):
        problems += name_problems(f"pbx_phones[{place}] ({phone['number']})", phone.get("name", ""))
    return problems


def name_problems(entry, name):
    """Sentences about a name that would break a configuration file or a call record."""
    found = BREAKS.search(name)
    if found:
        return [f"{entry}: the name {name!r} holds {found.group()!r}, which would break Asterisk's files; leave it out."]
    if len(name.encode()) > NAME_LENGTH or name != name.strip():
        return [f"{entry}: the name {name!r} is longer than {NAME_LENGTH} bytes or begins or ends with a space; trim it."]
    return []


def unknown_variables(names, rooms, roles):
    """Sentences about names that begin like a role's variables and are none of them.

    ``rooms`` are the roles' names, ``roles`` is the directory that holds them.
    """
    known = set()
    for room in rooms:
        spec = yaml.safe_load((Path(roles) / room / "meta/argument_specs.yml").read_text())
        known.update(spec["argument_specs"]["main"].get("options", {}))
    wrong = []
    for name in sorted(names):
        if name not in known and name.startswith(tuple(room + "_" for room in rooms)):
            near = difflib.get_close_matches(name, known, n=1)
            wrong.append(f"{name} is no variable of this collection"
                         f"{'; did you mean ' + near[0] + '?' if near else '.'}")
    return wrong


class FilterModule:
    """The filters, by name."""

    def filters(self):
        """Names as used in templates."""
        return {"exchange_problems": exchange_problems, "unknown_variables": unknown_variables}
