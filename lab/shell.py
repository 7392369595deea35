"""What every part of the lab shares: logging, errors, running a command, a lock, and the end of a program."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "labredes.pbx"


class LabError(Exception):
    """An error for the user: one sentence with the problem, where it is, and the solution."""


def log(message: str) -> None:
    """Write a progress message to stderr; stdout is kept for output that a program reads."""
    print(f"lab: {message}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | os.PathLike[str]], *, timeout: float = 120, check: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command quietly, for at most `timeout` seconds.

    Raises LabError with the last lines of the command's output when it fails and `check` is true.
    """
    words = [os.fspath(word) for word in command]
    options = {"stdin": subprocess.DEVNULL, **options}
    if "input" in options:
        del options["stdin"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=timeout, **options)
    except FileNotFoundError as error:
        raise LabError(f"the command {words[0]} is not installed; `make lab` installs it on Debian") from error
    except subprocess.TimeoutExpired as error:
        if not check:
            return subprocess.CompletedProcess(words, 124, "", f"no end after {timeout:g} s")
        raise LabError(f"`{' '.join(words[:4])} …` did not end within {timeout:g} s") from error
    if check and done.returncode:
        output = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise LabError(f"`{' '.join(words[:4])} …` failed with exit code {done.returncode}:\n{output}")
    return done


@contextlib.contextmanager
def lock(path: pathlib.Path, what: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`. A second run waits and logs that, or raises LabError when `wait` is false."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise LabError(f"another run is {what} ({path} is locked); wait until it has ended") from None
            log(f"another run is {what}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def perform(options: argparse.Namespace, what: str, *, alone: bool) -> None:
    """Perform the action of a command line, with the lock of its directory if `alone`.

    An error is one sentence and exit code 1; an interrupted action ends with 130.
    """
    options.dir = options.dir.resolve()
    try:
        with lock(options.dir / "lock", what, wait=False) if alone else contextlib.nullcontext():
            options.action(options)
    except LabError as error:
        log(str(error))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
