# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Locks a host for this run, which no module of Ansible does; documented in plugins/modules/run_lock.py."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess

from ansible.plugins.action import ActionBase

# Holds the lock while lines arrive. The name and the holder are arguments, for pgrep to find.
HOLD = "echo locked; while read -r -t 30 _; do :; done"
FIND = "pgrep -af '^bash -c echo locked; .*labredes-run '"
REMOTE = f"flock -w 5 -E 75 /etc/ssh bash -c {shlex.quote(HOLD)} labredes-run {{holder}} || {FIND}"
# Sends a line each second while the run's main process lives; then ssh sees the end of its input and ends.
LOCAL = 'while kill -0 "$1" && echo; do sleep 1; done 2>/dev/null | { shift; exec "$@"; }'


class ActionModule(ActionBase):
    """Leaves an ssh process behind that holds a flock on the host until the run's main process ends."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """Take the lock; a host that another run holds fails, a failed login is only returned."""
        result = dict(super().run(tmp, task_vars), changed=False)
        self.validate_argument_spec({})
        if self._connection.transport != "ssh":
            return dict(result, skipped=True)
        pid = os.getppid()  # the run's main process, of which this worker is a fork
        holder = f"{getpass.getuser()}@{socket.gethostname()} pid {pid}"
        remote = REMOTE.format(holder=shlex.quote(holder))
        output = self._start(pid, "echo locked" if self._task.check_mode else remote)
        found = output[-1].partition(" labredes-run ")[2] if output else ""
        if output[-1:] == ["locked"] or found == holder:
            return result
        if found or not output:
            busy = f"{task_vars['inventory_hostname']}: another run ({found or 'of unknown origin'}) is at work on it"
            return dict(result, failed=True, msg=f"{busy}; wait for it or stop it.")
        return dict(result, output="\n".join(output))

    def _start(self, pid: int, remote: str) -> list[str]:
        """Run the remote command in the background; gives its lines up to `locked`, or all of them."""
        connection = self._connection
        # A connection of its own: one that is open already proves no login and has few sessions (MaxSessions).
        own = "-o ControlMaster=no -o ControlPath=none "
        connection.set_option("ssh_args", own + (connection.get_option("ssh_args") or ""))
        connection.host = connection.get_option("host") or self._play_context.remote_addr
        command = connection._build_command(
            connection.get_option("ssh_executable"), "ssh", connection.host, f"sh -c {shlex.quote(remote)}"
        )
        password = connection.get_option("password") or self._play_context.password
        process = subprocess.Popen(
            ["sh", "-c", LOCAL, "labredes-run-lock", str(pid), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            pass_fds=connection.sshpass_pipe if password else (),
        )
        if password:
            os.write(connection.sshpass_pipe[1], f"{password}\n".encode())
            for end in connection.sshpass_pipe:
                os.close(end)
        output: list[str] = []
        while output[-1:] != ["locked"] and process.stdout and (line := process.stdout.readline()):
            output.append(line.strip())
        return [line for line in output if line]
