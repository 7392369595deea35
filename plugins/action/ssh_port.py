# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action labredes.pbx.ssh_port: see plugins/modules/ssh_port.py."""

from __future__ import annotations

import socket
import time

from ansible.plugins.action import ActionBase
from ansible_collections.labredes.pbx.plugins.plugin_utils.ssh_failure import place

# A port that neither answers nor refuses is behind a packet filter; the next one must not wait for it long.
ATTEMPT_SECONDS = 3.0
PAUSE_SECONDS = 0.5


def greets(address: str, port: int, seconds: float) -> bool:
    """True when an SSH server greets at this address and port within so many seconds. Raises socket.gaierror."""
    deadline = time.monotonic() + seconds
    greeting = b""
    try:
        with socket.create_connection((address, port), timeout=seconds) as connection:
            # RFC 4253, 4.2: lines of text may come before the one that begins with SSH-.
            while b"SSH-" not in greeting and len(greeting) < 8192:
                connection.settimeout(max(deadline - time.monotonic(), 0.01))
                chunk = connection.recv(1024)
                if not chunk:
                    return False
                greeting += chunk
            return b"SSH-" in greeting
    except socket.gaierror:
        raise
    except OSError:
        return False


def find_port(address: str, ports: list[int], timeout: float) -> int | None:
    """The first of the ports that greets; all are tried again for `timeout` seconds, then None."""
    deadline = time.monotonic() + timeout
    while True:
        for port in ports:
            left = deadline - time.monotonic()
            if greets(address, port, max(min(ATTEMPT_SECONDS, left), 0.5)):
                return port
        if time.monotonic() + PAUSE_SECONDS >= deadline:
            return None
        time.sleep(PAUSE_SECONDS)


class ActionModule(ActionBase):
    """The action plugin; it opens no connection of Ansible's."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Probe the ports; a host that answers on none fails with one sentence."""
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        _checked, args = self.validate_argument_spec(
            {
                "ports": {"type": "list", "elements": "int", "required": True},
                "timeout": {"type": "float", "default": 10},
            }
        )
        name = task_vars["inventory_hostname"]
        address = task_vars.get("ansible_host") or task_vars.get("ansible_ssh_host") or name
        address = self._templar.template(address)
        try:
            port = find_port(address, args["ports"], args["timeout"])
        except socket.gaierror:
            return dict(result, failed=True, msg=f"{name}: the name {address} is not known; check ansible_host.")
        if port is None:
            ports = ", ".join(str(port) for port in args["ports"])
            word = "port" if len(args["ports"]) == 1 else "ports"
            return dict(
                result,
                failed=True,
                msg=f"{place(name, address)}: nothing answers SSH on {word} {ports}; "
                "check that the host is up and ansible_host is right.",
            )
        return dict(result, changed=False, port=port)
