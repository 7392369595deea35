"""What the measurements share: new hosts, runs of site.yml on them, and their clock."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from shell import log

import lab

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAME = "pbx-bench"


def timed(what: str, command: list[str | pathlib.Path], **options: Any) -> float:
    """Seconds that a command takes; its output goes to stderr, not to the figures. Raises CalledProcessError."""
    log(what)
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=sys.stderr, **options)
    return time.monotonic() - begun


def in_turns(count: int, *measured: Callable[[], Any]) -> list[list[Any]]:
    """What each gives in each round; their order changes with every round."""
    found: list[list[Any]] = [[] for _ in measured]
    pairs = list(zip(found, measured, strict=True))
    for number in range(count):
        for results, measure in pairs if number % 2 == 0 else reversed(pairs):
            results.append(measure())
    return found


@contextlib.contextmanager
def fresh(suite: str, hosts: int = 1, name: str = NAME) -> Iterator[pathlib.Path]:
    """New lab hosts, without Asterisk; gives their directory, and removes them at the end."""
    with tempfile.TemporaryDirectory(prefix="labredes-bench-") as temporary:
        words = ["--dir", temporary, "--name", name]
        lab.create(lab.parse(["create", *words, "--distribution", suite, "--hosts", str(hosts)]))
        try:
            yield pathlib.Path(temporary)
        finally:
            lab.remove(lab.parse(["down", *words]))


def site(what: str, directory: pathlib.Path, *arguments: str, cache: pathlib.Path | None = None) -> dict[str, Any]:
    """Run site.yml on the lab of `directory`, with another `cache` if given.

    Returns `seconds`, and what tests/tools/callback/run_profile.py counts: `tasks`, `trips`, and `parts`, the seconds
    of each role.
    """
    profile = directory / "profile.json"
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/tools/callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "run_profile",
        "PROFILE_FILE": str(profile),
        **({"XDG_CACHE_HOME": str(cache)} if cache else {}),
    }
    program = pathlib.Path(sys.executable).parent / "ansible-playbook"
    command: list[str | pathlib.Path] = [program, "site.yml", "-i", directory / "inventory", *arguments]
    seconds = timed(what, command, cwd=ROOT, env=environment)
    return {"seconds": round(seconds, 1), **json.loads(profile.read_text())}
