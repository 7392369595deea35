# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A process that cleans up when the one that started it is done, or has ended, even by SIGKILL. For Python 3.6."""

import json
import os
import socket


class CleanupProcess:
    """Calls remove(), which returns failures as sentences, once finish() is called or the calling process has ended."""

    def __init__(self, remove):
        self.socket, theirs = socket.socketpair()
        if os.fork():
            theirs.close()
            return
        try:
            self.socket.close()
            os.setsid()  # signals to the other's group or terminal do not arrive here
            # Whoever reads the output of a process that was killed need not wait for this one.
            null = os.open(os.devnull, os.O_RDWR)
            for standard in range(3):
                os.dup2(null, standard)
            theirs.recv(1)  # nothing comes but the end
            theirs.sendall(json.dumps(remove()).encode())
        finally:
            os._exit(0)

    def finish(self, seconds=15):
        """Have everything removed; returns the failures."""
        self.socket.settimeout(seconds)
        try:
            self.socket.shutdown(socket.SHUT_WR)
            with self.socket.makefile("rb") as answer:
                return json.loads(answer.read().decode())
        except (OSError, ValueError):  # too late, or nothing at all
            return ["the process that removes the verification's own objects has failed"]
        finally:
            self.socket.close()
