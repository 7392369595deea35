# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter exchange_problems: cross-checks of phones, queues and numbers, which an argument spec cannot express."""

from __future__ import annotations

import re

from ansible.module_utils.parsing.convert_bool import boolean

NUMBER = re.compile(r"[0-9]{2,10}\Z")
CODE = re.compile(r"[*#]?[0-9]{2,10}\Z")
CHOICE = re.compile(r"[0-9]{1,4}\Z")
# Characters that Asterisk expands, or that end the value of a caller ID; templates escape quotes and semicolons.
# Asterisk cuts a caller ID with more than five quotes where it shows one.
SPECIAL = re.compile(r"""[\\<>\[\]{}$`\x00-\x1f\x7f]|"(?=([^"]*"){5})""")
NAME_BYTES = 79  # the column of a call record holds 80 bytes, the terminating zero included
EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\Z")
WORD = re.compile(r"[A-Za-z0-9_-]{1,40}\Z")


def exchange_problems(phones, conferences, queues, call_centres, applications, codes, agent_seconds):
    """One sentence for each problem, naming the entry and the cure."""
    numbers = [(f"pbx_conferences[{index}]", number) for index, number in enumerate(conferences)]
    for variable, entries in {"queues": queues, "call_centres": call_centres, "applications": applications}.items():
        numbers += [(f"pbx_{variable}[{index}]", entry["number"]) for index, entry in enumerate(entries)]
    numbers += [(f"pbx_codes.{key}", code) for key, code in codes.items() if code]
    problems = number_problems([(f"pbx_phones[{i}]", phone["number"]) for i, phone in enumerate(phones)] + numbers)
    for index, phone in enumerate(phones):
        problems += phone_problems(f"pbx_phones[{index}] ({phone['number']})", phone)
    agents = {str(phone["number"]): bool(phone.get("agent")) for phone in phones}
    problems += queue_problems(queues, agents, int(agent_seconds))
    for index, centre in enumerate(call_centres):
        problems += call_centre_problems(f"pbx_call_centres[{index}] ({centre['number']})", centre, agents)
    for index, entry in enumerate(applications):
        name = f"pbx_applications[{index}] ({entry['number']})"
        problems += field_problems(name, "application", entry["application"], "word")
    return problems


def number_problems(numbers):
    """Sentences about (entry, number) pairs that cannot be dialled, or that are used twice."""
    problems: list[str] = []
    owners: dict[str, str] = {}
    for entry, number in numbers:
        number = str(number)
        pattern, prefix = (CODE, ", after an optional * or #") if entry.startswith("pbx_codes.") else (NUMBER, "")
        if not pattern.match(number):
            problems.append(f"{entry}: {number!r} cannot be dialled; give 2 to 10 digits, in quotes{prefix}.")
        elif number in owners:
            problems.append(f"{entry}: {number} is taken by {owners[number]}; give it another number.")
        owners.setdefault(number, entry)
    return problems


def field_problems(entry, key, value, kind):
    """Sentences about a value that would break a configuration file; kind is email, word, name or agent."""
    value, problem = str(value), None
    # A | separates the columns of the queues' log, which names the agent.
    special = SPECIAL.search(value) or (kind == "agent" and re.search(r"\|", value))
    if kind == "email" and not EMAIL.match(value):
        problem = "is not an e-mail address; correct it or leave it out."
    elif kind == "word" and not WORD.match(value):
        problem = "is not valid; use 1 to 40 letters, digits, _ and -."
    elif special:
        problem = f"contains {special.group()!r}, which would break Asterisk's files; leave it out."
    elif not value or len(value.encode()) > NAME_BYTES or value != value.strip():
        problem = f"must have 1 to {NAME_BYTES} bytes and no space at its beginning or end; correct it."
    return [f"{entry}: the {key} {value!r} {problem}"] if problem else []


def phone_problems(entry, phone):
    """Sentences about the texts of a phone."""
    problems = []
    for key, kind in {"name": "name", "agent": "agent", "email": "email", "pager": "email"}.items():
        if phone.get(key) is not None:
            problems += field_problems(entry, key, phone[key], kind)
    pin = phone.get("pin")
    if pin is not None and not re.match(r"[0-9]{4,10}\Z", str(pin)):
        problems.append(f"{entry}: the pin must be 4 to 10 digits, in quotes; or leave it out to have one generated.")
    if pin and not boolean(phone.get("mailbox", True)):
        problems.append(f"{entry}: has a pin but no mailbox; remove one of the two.")
    return problems


def queue_problems(queues, agents, agent_seconds):
    """Sentences about queues. ``agents`` maps the number of each phone to whether its user is an agent."""
    problems, names = [], {"general": "Asterisk"}
    for index, queue in enumerate(queues):
        entry, name = f"pbx_queues[{index}] ({queue['name']})", queue["name"].lower()
        problems += field_problems(entry, "name", queue["name"], "word")
        if name in names:
            problems.append(f"{entry}: the name is taken by {names[name]}; choose another.")
        names.setdefault(name, entry)
        listed = [str(number) for number in queue["agents"]]
        for number in dict.fromkeys(listed):
            if number not in agents:
                problems.append(f"{entry}: agent {number} is not a phone; add it to pbx_phones or remove it.")
            elif not agents[number]:
                problems.append(
                    f"{entry}: phone {number} has no agent name; give it agent: in pbx_phones or remove it."
                )
            if listed.count(number) > 1:
                problems.append(f"{entry}: agent {number} is listed twice; remove one.")
        ring, wait = int(queue["timeout"]), int(queue["max_wait"])
        if ring <= agent_seconds:
            problems.append(f"{entry}: timeout {ring} must be longer than the {agent_seconds} s of pbx_agent_seconds.")
        if wait < ring:
            problems.append(f"{entry}: max_wait {wait} is shorter than timeout {ring}; make it longer.")
    return problems


def call_centre_problems(entry, centre, phones):
    """Sentences about departments that cannot be dialled or are not phones."""
    problems = [] if centre["departments"] else [f"{entry}: has no departments; give at least one."]
    if int(centre["tries"]) < 1:
        problems.append(f"{entry}: tries {centre['tries']} is too few; give at least 1.")
    for key, number in centre["departments"].items():
        if not CHOICE.match(str(key)):
            problems.append(f"{entry}: {key!r} cannot be dialled; give 1 to 4 digits, in quotes.")
        if str(number) not in phones:
            problems.append(f"{entry}: department {key} is {number}, which is not a phone; add it to pbx_phones.")
    return problems


class FilterModule:
    """The filter, by name."""

    def filters(self):
        """The name that templates use."""
        return {"exchange_problems": exchange_problems}
