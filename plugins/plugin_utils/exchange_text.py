# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a number, name or address of an exchange may be, so that no configuration file breaks by it."""

from __future__ import annotations

import re

NUMBER = re.compile(r"[0-9]{2,10}\Z")
CODE = re.compile(r"[*#]?[0-9]{2,10}\Z")
# What would end a value, start a comment, or be expanded in Asterisk's configuration files.
BREAKS = re.compile(r'["\\;<>\[\]{}$`\x00-\x1f\x7f]')
NAME_LENGTH = 79  # what a call record's column holds is 80, with its end
MAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\Z")
WORD = re.compile(r"[A-Za-z0-9_-]{1,40}\Z")


def number_problems(named):
    """Sentences about (entry, number) pairs that cannot be dialled, or that were given before."""
    problems, owners = [], {}
    for entry, number in named:
        number = str(number)
        if entry.startswith("pbx_codes."):
            if not CODE.match(number):
                problems.append(
                    f"{entry}: {number!r} is no code that can be dialled; give 2 to 10 digits, in quotes, "
                    "with * or # before them if you like."
                )
                continue
        elif not NUMBER.match(number):
            problems.append(f"{entry}: {number!r} is no number that can be dialled; give 2 to 10 digits, in quotes.")
            continue
        if number in owners:
            problems.append(f"{entry}: {number} is taken by {owners[number]}; give it another number.")
        else:
            owners[number] = entry
    return problems


def text_problems(entry, key, value, kind):
    """Sentences about a value of a kind: name, agent, mail, word (a name of a section or program), pin."""
    value = str(value)
    if kind == "pin":
        good = value.isascii() and value.isdigit() and 4 <= len(value) <= 10
        return [] if good else [f"{entry}: the pin must be 4 to 10 digits, in quotes; or leave it out and one is made."]
    if kind == "mail":
        return (
            []
            if MAIL.match(value)
            else [f"{entry}: the {key} {value!r} is no e-mail address; correct it or leave it out."]
        )
    if kind == "word":
        return (
            []
            if WORD.match(value)
            else [f"{entry}: the {key} {value!r} must be 1 to 40 letters, digits, _ and - alone; choose another."]
        )
    found = BREAKS.search(value) or (kind == "agent" and re.search(r"[,|]", value))
    if found:
        return [
            f"{entry}: the {key} {value!r} holds {found.group()!r}, which would break Asterisk's files; leave it out."
        ]
    if len(value.encode()) > NAME_LENGTH or value != value.strip():
        return [
            f"{entry}: the {key} {value!r} is longer than {NAME_LENGTH} bytes or begins or ends with a space; trim it."
        ]
    return [] if value else [f"{entry}: the {key} is empty; give one."]
