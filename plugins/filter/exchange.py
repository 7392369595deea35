# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cross-checks of the exchange's description, made before any host is touched."""

from __future__ import annotations

import difflib
from pathlib import Path

import yaml
from ansible_collections.labredes.pbx.plugins.plugin_utils.exchange_text import number_problems, text_problems

DOCUMENTATION = r"""
name: exchange_problems
short_description: What is wrong with the description of an exchange
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
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
  queues:
    description: The queues, as in C(pbx_queues).
    type: list
    elements: dict
  call_centres:
    description: The call centres, as in C(pbx_call_centres).
    type: list
    elements: dict
  applications:
    description: Numbers that are handed over to ARI, as in C(pbx_applications).
    type: list
    elements: dict
  codes:
    description: The codes of services, as in C(pbx_codes).
    type: dict
  agent_seconds:
    description: Seconds after which an agent who takes no call is logged off, as in C(pbx_agent_seconds).
    type: int
"""

# No other collection has variables that begin so.
OWN_PREFIXES = ("labredes_", "pbx_", "preflight_", "asterisk_package_")
CODES = ("voicemail", "agent_login", "queue_join", "queue_leave", "forward", "unforward")


def exchange_problems(
    phones, conferences=(), queues=(), call_centres=(), applications=(), codes=None, agent_seconds=15
):
    """One sentence for each thing that is wrong, naming the entry and the cure."""
    codes = codes or {}
    problems = [
        f"pbx_codes.{key} is no service; the services are {', '.join(CODES)}." for key in codes if key not in CODES
    ]
    named = [(f"pbx_phones[{place}]", phone["number"]) for place, phone in enumerate(phones)]
    named += [(f"pbx_conferences[{place}]", number) for place, number in enumerate(conferences)]
    for variable, entries in (
        ("pbx_queues", queues),
        ("pbx_call_centres", call_centres),
        ("pbx_applications", applications),
    ):
        named += [(f"{variable}[{place}]", entry["number"]) for place, entry in enumerate(entries)]
    named += [(f"pbx_codes.{key}", codes[key]) for key in CODES if codes.get(key)]
    problems += number_problems(named)
    for place, phone in enumerate(phones):
        problems += phone_problems(f"pbx_phones[{place}] ({phone['number']})", phone)
    agents = {str(phone["number"]) for phone in phones if phone.get("agent")}
    known = {str(phone["number"]) for phone in phones}
    problems += queue_problems(queues, known, agents, agent_seconds)
    for place, centre in enumerate(call_centres):
        problems += call_centre_problems(f"pbx_call_centres[{place}] ({centre['number']})", centre, known)
    for place, entry in enumerate(applications):
        problems += text_problems(
            f"pbx_applications[{place}] ({entry['number']})", "application", entry["application"], "word"
        )
    return problems


def phone_problems(entry, phone):
    """Sentences about what a phone is called and where its mail goes."""
    kinds = {"name": "name", "agent": "agent", "email": "mail", "pager": "mail", "pin": "pin"}
    problems = []
    for key, kind in kinds.items():
        if phone.get(key) is not None:
            problems += text_problems(entry, key, phone[key], kind)
    if phone.get("mailbox", True) is False and phone.get("pin"):
        problems.append(f"{entry}: has a pin and no mailbox; take out one of the two.")
    return problems


def queue_problems(queues, known, agents, agent_seconds):
    """Sentences about queues whose names clash, whose agents are none, or whose times cannot work."""
    problems, names = [], {}
    for place, queue in enumerate(queues):
        entry = f"pbx_queues[{place}] ({queue['name']})"
        problems += text_problems(entry, "name", queue["name"], "word")
        if queue["name"].lower() in (*names, "general"):
            problems.append(
                f"{entry}: the name is taken by {names.get(queue['name'].lower(), 'Asterisk')}; give it another."
            )
        names[queue["name"].lower()] = entry
        listed = [str(number) for number in queue.get("agents") or []]
        for number in dict.fromkeys(listed):
            if number not in known:
                problems.append(f"{entry}: the agent {number} is no phone; add it to pbx_phones or take it out.")
            elif number not in agents:
                problems.append(
                    f"{entry}: phone {number} has no agent's name; give it agent: in pbx_phones or take it out."
                )
            if listed.count(number) > 1:
                problems.append(f"{entry}: the agent {number} is listed twice; take one out.")
        ring, wait = int(queue.get("timeout", 20)), int(queue.get("max_wait", 120))
        if ring <= int(agent_seconds):
            problems.append(f"{entry}: timeout {ring} must be longer than the {agent_seconds} s of pbx_agent_seconds.")
        if wait < ring:
            problems.append(f"{entry}: max_wait {wait} is shorter than timeout {ring}; nobody could answer in time.")
    return problems


def call_centre_problems(entry, centre, known):
    """Sentences about departments that cannot be dialled or lead nowhere."""
    problems = [] if centre["departments"] else [f"{entry}: has no departments; give at least one."]
    if int(centre.get("tries", 5)) < 1:
        problems.append(f"{entry}: tries {centre['tries']} lets nobody choose; give at least 1.")
    for key, number in centre["departments"].items():
        if not (str(key).isascii() and str(key).isdigit() and len(str(key)) <= 4):
            problems.append(f"{entry}: {key!r} is no choice that can be dialled; give 1 to 4 digits, in quotes.")
        if str(number) not in known:
            problems.append(f"{entry}: department {key} leads to {number}, which is no phone; add it to pbx_phones.")
    return problems


def unknown_variables(names, roles, renamed, ignored=()):
    """Sentences about names that were renamed, or that are a misspelling of a variable of this collection.

    ``roles`` is the directory of the roles, ``renamed`` maps an old name to what replaces it, ``ignored`` are names
    that pass. A name that another collection may have, such as ``postgresql_version``, passes unless it is one letter
    away from one of ours.
    """
    known = set()
    for path in Path(roles).glob("*/meta/argument_specs.yml"):
        known.update(yaml.safe_load(path.read_text())["argument_specs"]["validate"].get("options", {}))
    problems = []
    for name in sorted(set(names) - known - set(ignored)):
        if name in renamed:
            problems.append(f"{name} is no longer a variable; use {renamed[name]}.")
        elif name.startswith(OWN_PREFIXES) or any(one_edit_apart(name, variable) for variable in known):
            near = difflib.get_close_matches(name, known, n=1)
            problems.append(f"{name} is no variable of this collection{f'; did you mean {near[0]}?' if near else '.'}")
    return problems


def one_edit_apart(one, other):
    """Whether one letter added, left out, changed, or swapped with its neighbour turns a name into the other."""
    if abs(len(one) - len(other)) > 1:
        return False
    start = next((place for place, pair in enumerate(zip(one, other)) if pair[0] != pair[1]), min(len(one), len(other)))
    one, other = one[start:], other[start:]
    return (
        one[1:] == other[1:]
        or one[1:] == other
        or one == other[1:]
        or (one[:2] == other[1::-1] and one[2:] == other[2:])
    )


class FilterModule:
    """The filters, by name."""

    def filters(self):
        """Names as used in templates."""
        return {"exchange_problems": exchange_problems, "unknown_variables": unknown_variables}
