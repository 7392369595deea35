#!/usr/bin/python3
"""Check that the options asked for were chosen and built: menuselect drops those whose needs are not met and exits 0.

    check_menuselect.py choice --enable NAME... --disable NAME...    in the tree, after menuselect
    check_menuselect.py modules DIRECTORY --enable NAME...           after make install

Prints a line with "E: " for each option that is wrong; exit code 1 if there is one.
"""

import argparse
import os
import re
import sys
import xml.etree.ElementTree as ElementTree

MODULE = re.compile(r"(app|bridge|cdr|cel|chan|codec|format|func|pbx|res)_")


def wrong_choices(tree, enable, disable):
    """A sentence for each option that menuselect.makeopts does not have as it was asked for."""
    chosen = {}
    with open(os.path.join(tree, "menuselect.makeopts")) as stream:
        for line in stream:
            name, equals, value = line.strip().partition("=")
            if equals:
                chosen.setdefault(name, set()).update(value.split())
    members = {}
    for category in ElementTree.parse(os.path.join(tree, "menuselect-tree")).iter("category"):
        # A category with positive output lists the options that are on, any other those that are off.
        listed_is_on = category.get("positive_output") == "yes"
        listed = chosen.get(category.get("name"), set())
        for member in category.iter("member"):
            needs = [need.text for need in member.iter("depend") if need.text]
            members[member.get("name")] = ((member.get("name") in listed) == listed_is_on, needs)
    for name in enable:
        if name not in members:
            yield f"this release has no option {name}."
        elif not members[name][0]:
            needs = ", ".join(members[name][1]) or "something"
            yield f"{name} cannot be built: it needs {needs}, and ./configure did not find all of it."
    for name in disable:
        if members.get(name, (False,))[0]:
            yield f"{name} was to be left out and is still chosen."


def missing_modules(directory, enable):
    """A sentence for each module asked for that is not in the directory."""
    for name in enable:
        if MODULE.match(name) and not os.path.isfile(os.path.join(directory, name + ".so")):
            yield f"{name} was chosen and not built."


def main(words):
    """Check what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["choice", "modules"])
    parser.add_argument("directory", nargs="?", default=".")
    parser.add_argument("--enable", nargs="*", default=[])
    parser.add_argument("--disable", nargs="*", default=[])
    asked = parser.parse_args(words)
    if asked.what == "choice":
        wrong = list(wrong_choices(asked.directory, asked.enable, asked.disable))
    else:
        wrong = list(missing_modules(asked.directory, asked.enable))
    for sentence in wrong:
        print("E: " + sentence)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
