# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run at a time on a host: a lock file on the controller that names the run's main process."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
from pathlib import Path
from urllib.parse import quote


class Busy(Exception):
    """Another run holds the lock; `holder` is what it wrote about itself."""

    def __init__(self, holder: dict) -> None:
        super().__init__(holder)
        self.holder = holder


def started(pid: int) -> str | None:
    """When a process of this machine started, as a string that no later process of the same id shares.

    None when there is no such process, or it is a zombie. From /proc where there is one, else from ps.
    """
    try:
        # proc(5): the second field is the command in brackets and may hold anything; field 22 is the start in ticks.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return None if fields[0] == "Z" else f"{boot} {fields[19]}"
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def _parent_and_words(pid: int) -> tuple[int, bytes]:
    """The parent of a process and its command line. Raises OSError without /proc."""
    parent = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
    return int(parent), Path(f"/proc/{pid}/cmdline").read_bytes()


def main_process() -> int:
    """The process id of the run: the topmost ancestor that shows this process's own command line.

    A worker is a fork of the run's main process, so both show the same words.
    """
    pid = os.getpid()
    try:
        parent, words = _parent_and_words(pid)
        while parent > 1 and _parent_and_words(parent)[1] == words:
            pid, parent = parent, _parent_and_words(parent)[0]
    except OSError:
        return os.getppid()
    return pid


def take(directory: Path, name: str, address: str, pid: int) -> bool:
    """Take the lock of a host for process `pid`; True when it was free, False when this process has it already.

    Raises Busy while the process of another run is alive, OSError when the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / (quote(f"{name}@{address}", safe="@") + ".json")
    mine = {"pid": pid, "started": started(pid), "controller": socket.gethostname()}
    with open(directory / ".guard", "w", encoding="ascii") as guard:
        # Between looking at a stale lock and replacing it nobody else may do the same.
        fcntl.flock(guard, fcntl.LOCK_EX)
        holder = _read(path)
        if holder == mine:
            return False
        if holder:
            here = holder.get("controller") == mine["controller"]
            if not here or (started(holder["pid"]) or "") == holder.get("started"):
                raise Busy({**holder, "file": str(path), "here": here})
            path.unlink()
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as stream:
            json.dump(mine, stream)
    return True


def _read(path: Path) -> dict | None:
    """What a lock file says; None when there is none. One that a full disk left torn is removed."""
    try:
        holder = json.loads(path.read_text(encoding="ascii"))
        return {"pid": int(holder["pid"]), "started": holder["started"], "controller": holder["controller"]}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        path.unlink()
        return None
