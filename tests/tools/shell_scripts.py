#!/usr/bin/env python3
"""Runs shellcheck on every shell script of the project, scripts that are templates included; `make lint` runs it.

A template is rendered as for a host of the default description, since shellcheck does not read Jinja.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

ROOT = Path(__file__).resolve().parents[2]
init_plugin_loader([str(ROOT / "collections")])
sys.path.insert(0, str(ROOT / "tests/unit"))
import rendering  # noqa: E402  it lies beside the unit tests

SHEBANG = re.compile(r"#!.*\b(sh|bash|dash)\b")


def tracked() -> list[Path]:
    """Every file of the project that git knows or would add."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def scripts(directory: Path) -> dict[Path, str]:
    """The shell scripts, with the shell of those that do not name it; templates are rendered into the directory."""
    found = {}
    for path in tracked():
        if path.is_symlink() or not path.is_file():
            continue
        with path.open(errors="replace") as opened:
            names_shell = SHEBANG.match(opened.readline())
        if names_shell or path.name.endswith((".sh", ".sh.j2")):
            script = rendered(path, directory) if path.suffix == ".j2" else path
            found[script] = "" if names_shell else "sh"
    return found


def rendered(template: Path, directory: Path) -> Path:
    """A rendered template, in a file named after its role and itself."""
    role = template.relative_to(rendering.ROLES).parts[0]
    known = rendering.variables(rendering.FACTS["Debian 12"], {}, directory / "secrets", role)
    path = directory / f"{role}-{template.stem}"
    path.write_text(rendering.render(template, known))
    return path


def main() -> int:
    """Returns shellcheck's exit status, of either run the worse."""
    with tempfile.TemporaryDirectory() as directory:
        found = scripts(Path(directory))
        statuses = []
        for shell in set(found.values()):
            command = ["shellcheck", "--color=never", *([f"--shell={shell}"] if shell else []), "--"]
            command += [str(script) for script, its_shell in found.items() if its_shell == shell]
            statuses.append(subprocess.run(command, cwd=ROOT, check=False).returncode)
        return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
