"""What no file may contain: names of registries, paths of one machine, and words that only insiders understand."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
import rendering

# Written in parts, so that this file does not contain them itself.
REGISTRIES = [
    "py" + "pi",
    "python" + "hosted",
    "npm" + "js",
    r"deb\.deb" + "ian",
    r"ftp\.deb" + "ian",
    r"archive\.ub" + "untu",
    r"gal" + r"axy\.ansible",
    r"docker\." + "io",
    r"quay\." + "io",
]
FORBIDDEN = re.compile(
    r"\b(" + "|".join(REGISTRIES) + r")\.?(org|com|io)?\b|(?<![\w.~{}$-])/(wor" + r"k|roo" + r"t)(?=[/\s\"'`])",
    re.IGNORECASE,
)

# A word of the project's early days, and what to write instead.
WORDS = {
    r"rehears\w*": "check mode",
    r"work(s|ed)? out": "compute",
    r"ways? (in|through)": "SSH access, steps",
    r"hand-?made": "the reason itself",
    r"guess\w*": "brute force, attacker, assume",
    r"the original('s)?": "the reason itself",
    r"(?<!conference )rooms?": "directory, role, space",
    r"told": "configured, reported, given",
    r"hand(s|ed|ing)? over": "pass, copy",
    r"survey\w*": "inspect",
    r"settl(e|es|ed|ing)": "confirm",
}
# The list itself, texts that are not ours, and the old names that a run still has to recognize.
EXEMPT = {
    "LICENSE",
    "apir_py/src/apir_py/web/vendor/LICENSE-htm.txt",
    "tests/unit/test_wording.py",
    "roles/labredes/vars/renamed.yml",
}


def lines() -> Iterator[tuple[str, int, str]]:
    """Every line of the project as (file, number, text)."""
    command = ["git", "-C", rendering.ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        path = rendering.ROOT / name
        if path.is_file() and not path.is_symlink():
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                yield name, number, line


def private_word(line: str) -> str | None:
    """The first private word of a line."""
    found = re.search(r"\b(" + "|".join(WORDS) + r")\b", line.replace("_", " "), re.IGNORECASE)
    return found and found[0]


def test_no_file_names_a_registry_or_machine_path():
    assert not [f"{name}:{number}: {line.strip()}" for name, number, line in lines() if FORBIDDEN.search(line)]


def test_no_file_has_a_private_word():
    found = [
        f"{name}:{number}: {word!r} in: {line.strip()}"
        for name, number, line in lines()
        if name not in EXEMPT and (word := private_word(line))
    ]
    assert not found, "\n".join([f"{len(found)} lines; write instead: {WORDS}", *found])


@pytest.mark.parametrize(
    "line", ["Who guesses is banned.", "def f(room):", "__way_in: 1", "The original's PIN", "tasks/settle.yml"]
)
def test_private_words_are_found(line):
    assert private_word(line)


@pytest.mark.parametrize("line", ["Extensions of the conference rooms.", "original message", "mushroom"])
def test_ordinary_words_pass(line):
    assert private_word(line) is None
