"""What every part of the lab shares: one way to speak, to fail, to run a command, to wait its turn."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "labredes.pbx"


class LabError(Exception):
    """One sentence that says what is wrong, where, and the cure."""


def say(message: str) -> None:
    """Tell the user how far we are; stdout is kept for what a program may read."""
    print(f"lab: {message}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | os.PathLike[str]], *, timeout: float = 120, check: bool = True, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run a command quietly, for at most `timeout` seconds.

    Raises LabError with the end of the command's own words when it fails and `check` is true.
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
        told = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise LabError(f"`{' '.join(words[:4])} …` failed with exit code {done.returncode}:\n{told}")
    return done


@contextlib.contextmanager
def alone(path: pathlib.Path, what: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`; a second run waits and says so, or is refused when `wait` is false."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise LabError(f"another run is {what} ({path} is locked); wait until it has ended") from None
            say(f"another run is {what}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
