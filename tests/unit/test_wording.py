"""What no file of the project may hold: the names of registries, and paths of somebody's machine."""

from __future__ import annotations

import re
import subprocess

import rendering

# Written in parts, so that this file does not hold them itself.
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


def test_no_file_names_a_registry_or_a_machines_path():
    listed = subprocess.run(
        ["git", "-C", rendering.ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        path = rendering.ROOT / name
        if path.is_file() and not path.is_symlink():
            lines = path.read_text(errors="replace").splitlines()
            found += [
                f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if FORBIDDEN.search(line)
            ]
    assert not found
