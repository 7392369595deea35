"""A strict parser of Asterisk's configuration files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SECTION = re.compile(r"\[(?P<name>[^\[\]]+)\](?:\((?P<marks>[^()]+)\))?$")
SETTING = re.compile(r"(?P<key>[A-Za-z0-9][\w.-]*)\s*(?:=>|=)\s*(?P<value>.*)$")


@dataclass
class Section:
    """A section: its name, whether it is a template, its parent templates, and its (key, value) pairs in order."""

    name: str
    template: bool = False
    parents: list[str] = field(default_factory=list)
    settings: list[tuple[str, str]] = field(default_factory=list)

    def get(self, key: str) -> str | None:
        """The last value of a key in the section itself, or None."""
        return next((value for known, value in reversed(self.settings) if known == key), None)


def parse(text: str) -> list[Section]:
    """The sections of a file. Raises ValueError, with the number of the line, for an invalid line."""
    sections: list[Section] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith((";", "#include ", "#tryinclude ")):
            continue
        if raw != raw.strip() and not line.startswith("same"):
            raise ValueError(f"line {number} begins or ends with a space: {raw!r}")
        if match := SECTION.match(line):
            marks = [mark.strip() for mark in (match["marks"] or "").split(",") if mark]
            parents = [mark for mark in marks if mark not in ("!", "+")]
            unknown = set(parents) - {section.name for section in sections if section.template}
            if unknown:
                raise ValueError(f"line {number} uses templates that are not defined above it: {sorted(unknown)}")
            sections.append(Section(match["name"], "!" in marks, parents))
        elif (match := SETTING.match(line)) and sections:
            if not match["value"]:
                raise ValueError(f"line {number} has no value: {line!r}")
            if re.search(r"(?<!\\);", match["value"]):
                raise ValueError(f"line {number} has a comment in its value: {line!r}")
            sections[-1].settings.append((match["key"], match["value"]))
        else:
            raise ValueError(f"line {number} is not a section, setting or comment: {line!r}")
    return sections


def setting(sections: list[Section], section: Section, key: str) -> str | None:
    """The value of a key in a section or, if it has none, in its parent templates."""
    templates = {candidate.name: candidate for candidate in sections if candidate.template}
    for source in [section, *(templates[name] for name in reversed(section.parents))]:
        if (value := source.get(key)) is not None:
            return value
    return None
