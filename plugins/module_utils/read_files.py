# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which files a running service has not read yet: the difference between what runs and what is on disk.

A file is identified by its inode and the time of its last change (ctime), so a file that was replaced, edited, restored
or removed differs, whatever its own time stamp says. What a service has read is noted below /run, together with its
invocation; after a restart or a reboot the start of the process is compared instead. Runs on Python 3.6 and later.
"""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time

DIRECTORY = "/run/labredes"
BOOTTIME = 7  # time.CLOCK_BOOTTIME of Python 3.7 and later
PROPERTIES = [
    "ActiveState",
    "InvocationID",
    "ExecMainStartTimestampMonotonic",
    "NeedDaemonReload",
    "LoadState",
    "UnitFileState",
]


def unit_state(unit):
    """The PROPERTIES of a systemd unit as a dictionary of strings."""
    command = ["systemctl", "show", "--property=" + ",".join(PROPERTIES), unit]
    output = subprocess.check_output(command, encoding="utf-8", timeout=30)
    return dict(line.partition("=")[::2] for line in output.splitlines())


def socket_state(path):
    """The same without systemd, of a process of another container that made the socket at path when it started."""
    made = identity(path)
    active = False
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
        try:
            client.connect(path)
            active = True
        except OSError:
            pass
    # In terms of the clocks of this moment: the time since the start is the same by both.
    started = time.clock_gettime(BOOTTIME) - time.time() + (made[1] / 1e9 if made else 0)
    return {
        "ActiveState": "active" if active else "inactive",
        "InvocationID": str(made),
        "ExecMainStartTimestampMonotonic": str(int(started * 1e6)),
        "NeedDaemonReload": "no",
    }


def identity(path):
    """[inode, ctime in nanoseconds] of the file that path leads to; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_ino, status.st_ctime_ns]


class ReadFiles:
    """The files of one unit as they are at this moment. directory: where the notes are kept.

    paths: a list, or a dictionary that gives a path several names, one for each part of the service that reads it.
    """

    def __init__(self, unit, paths, directory=DIRECTORY):
        self.note = os.path.join(directory, unit + ".json")
        names = paths if isinstance(paths, dict) else dict(zip(paths, paths))
        self.found = {name: identity(path) for name, path in names.items()}

    def unread(self, state):
        """The paths that the service, active and with this unit_state(), has not read as they were found."""
        known = self._known(state)
        # In terms of the clock as it is now, which may have been set since the start. CLOCK_BOOTTIME also counts the
        # time that a virtual machine was suspended: a start too early costs a reload, one too late loses a change.
        running = time.clock_gettime(BOOTTIME) - int(state["ExecMainStartTimestampMonotonic"]) / 1e6
        started = (time.time() - running) * 1e9
        old = {path for path, now in self.found.items() if now is None or now[1] < started}
        return [path for path, now in self.found.items() if (known[path] != now if path in known else path not in old)]

    def touch(self, path):
        """Give a file that exists a new time: Asterisk does not read one again whose time it has seen before."""
        if self.found[path] is not None:
            os.utime(path)
            self.found[path] = identity(path)

    def save(self, state, paths):
        """Note that the service has read these paths as they were found."""
        before = self._known(state)
        known = dict(before, **{path: self.found[path] for path in paths})
        if known == before:
            return
        os.makedirs(os.path.dirname(self.note), mode=0o755, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=os.path.dirname(self.note))
        with os.fdopen(handle, "w") as stream:
            json.dump({"invocation": state["InvocationID"], "files": known}, stream)
        os.rename(draft, self.note)

    def _known(self, state):
        """What the note says of this invocation of the service."""
        try:
            with open(self.note) as stream:
                note = json.load(stream)
            return note["files"] if note["invocation"] == state["InvocationID"] else {}
        except (OSError, ValueError, KeyError):
            return {}
