"""podman, or another program with its command line such as docker, and the settings with which it works here."""

from __future__ import annotations

import functools
import os
import subprocess
from typing import Any

import host
from shell import CACHE, LabError, run

# Whichever is given has docker's commands; only what podman and docker share is used of them.
ENGINE = os.environ.get("ENGINE", "") or "podman"
# Of the container with Asterisk; the names of the others and of the volumes begin with it.
NAME = os.environ.get("LABREDES_NAME", "") or "labredes-pbx"


@functools.cache
def environment(image: str) -> dict[str, str]:
    """The environment of podman's commands: this one, or one whose settings work on this machine."""
    if ENGINE != "podman" or os.environ.get("CONTAINERS_CONF"):
        return dict(os.environ)
    settings = CACHE / f"containers-{os.getuid()}.conf"
    for limits in host.limits():
        for runtime in ("", "crun", "runc"):
            text = f'[engine]\nruntime = "{runtime}"\n' if runtime else ""
            if limits:
                values = ", ".join('"' + limit.removeprefix("--ulimit=") + '"' for limit in limits)
                text += f"[containers]\ndefault_ulimits = [{values}]\n"
            settings.parent.mkdir(parents=True, exist_ok=True)
            settings.write_text(text)
            tried = {**os.environ, **({"CONTAINERS_CONF": str(settings)} if text else {})}
            probe = ["podman", "run", "--rm", "--network=none", "--entrypoint=true", image]
            if run(probe, check=False, env=tried).returncode == 0:
                return tried
    raise LabError("podman cannot start a container here, with crun or runc; see what `podman run` says")


def engine(*words: str | os.PathLike[str], image: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the engine; one that starts containers names an image to try the settings with."""
    return run([ENGINE, *words], env=environment(image) if image else dict(os.environ), **options)


def remove(name: str, seconds: int = 0) -> None:
    """Remove a container, if it is there; one that should end by itself has some seconds for it."""
    end = ("stop", f"-t={seconds}", name) if seconds else ("kill", name)
    engine(*end, check=False, timeout=seconds + 50)
    engine("rm", "--force", name, check=False, timeout=60)
