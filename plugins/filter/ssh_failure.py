# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cause of a failed connection in one sentence with its cure, which Ansible's own message does not give."""

from __future__ import annotations

import re

from ansible.release import __version__ as core

DOCUMENTATION = r"""
name: ssh_failure
short_description: Explain a failed connection in one sentence
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Turns the output of ssh, sudo or the remote shell into one sentence that names the host, the cause and the cure.
  - Of several failures, the first of a server that answered counts.
options:
  _input:
    description: The failures, each with C(port) and C(msg).
    type: list
    elements: dict
    required: true
  name:
    description: Name of the host in the inventory.
    type: str
    required: true
  address:
    description: Address of the host.
    type: str
  user:
    description: The user who logs in.
    type: str
  python:
    description: Path of Python on the host.
    type: str
"""

# Ansible puts these words before the reason.
PREFIX = re.compile(r"^timed out waiting for [^:]*: ")
SILENCE = (
    r"connect failed: |stdio forwarding failed|[Tt]imed out|No route to host|Connection refused|Network is unreachable"
)
# (pattern in the output of ssh, sudo or the remote shell, cause and cure); the first match counts.
CAUSES = (
    (
        r"^(?![\s\S]*stdio forwarding failed)[\s\S]*Connection closed by UNKNOWN port",
        "the connection through its jump host failed ({jump}); check `ssh {address}` and ProxyJump in ~/.ssh/config.",
    ),
    (
        r"terminating, \d+ bad configuration options",
        "ssh refuses its configuration ({configuration}); correct that line.",
    ),
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed",
        "its host key is not the one known; if the host was made anew, remove the old key with "
        "`ssh-keygen -R '{known_as}'`, else somebody may be in between.",
    ),
    (
        r"UNPROTECTED PRIVATE KEY|bad permissions|Load key .*invalid format|error in libcrypto",
        "the private key cannot be used; check ansible_ssh_private_key_file, its owner and its mode (0600).",
    ),
    (
        r"Identity file .* not accessible|no such identity",
        "the private key does not exist; check ansible_ssh_private_key_file.",
    ),
    (
        r"Permission denied|Too many authentication failures|authentication failure.*password",
        "the login as {user} was refused; check ansible_user and that the key in "
        "ansible_ssh_private_key_file (or the agent) is one of its authorized keys.",
    ),
    (
        r"[Mm]issing sudo password|sudo: a password is required|sudo: .*password|is not in the sudoers|"
        r"Incorrect sudo password|may not run sudo|not allowed to execute",
        "{user} may not become root by sudo; allow it without a password (NOPASSWD) or give ansible_become_password.",
    ),
    (
        r"sudo: (command )?not found|(executable|command) .*sudo.* (not found|could not be found)",
        "sudo is not installed; install it, or set ansible_become_method: su if {user} is root.",
    ),
    (
        r"python\S*: (command )?not found|python\S*: No such file|interpreter .* was not found|No such file.*python",
        "Python 3 is not at {python}; install python3 or set ansible_python_interpreter.",
    ),
    (r"[Nn]o space left on device", "its disk is full; free some space on / and /tmp."),
    (
        r"requires (a minimum of )?Python|AnsiballZ_setup\.py[\s\S]*(Syntax|Import|Type|Attribute|Name)Error",
        "{python} is too old for the controller's ansible-core {core}; install ansible-core 2.16 on the controller, "
        "for which Python 3.6 is enough, or set ansible_python_interpreter to a newer Python.",
    ),
    (
        r"Could not resolve hostname|Name or service not known|nodename nor servname|failure in name resolution",
        "the name {address} is not known; check ansible_host.",
    ),
    (SILENCE, "nothing answers SSH on port {port}; check that the host is up and ansible_host is right."),
    (
        r"kex_exchange_identification|Connection (closed|reset) by|no matching (host key|key exchange|cipher|mac)",
        "its SSH server closed the connection ({detail}); it may ban this address or support no common algorithm.",
    ),
)


def _detail(text):
    """The last line that is neither empty nor decoration."""
    lines = [line.strip(" @\r") for line in text.partition("\n\nThe error appears to be in")[0].splitlines()]
    lines = [line for line in lines if re.search(r"\w", line) and not line.startswith("Warning: Permanently added")]
    return lines[-1][:300] if lines else "no reason given"


def ssh_failure(failures, name, address=None, user=None, python=None):
    """One sentence about the first failure of a server that answered, or about the silence of all."""
    address = address or name
    failures = [(str(failure["port"]), PREFIX.sub("", failure["msg"])) for failure in failures]
    port, text = next((one for one in failures if not re.search(SILENCE, one[1])), failures[0])
    if re.search(SILENCE, text):
        port = ", ".join(dict.fromkeys(one for one, _ in failures))
    cause = next((cure for pattern, cure in CAUSES if re.search(pattern, text)), "{detail}.")
    place = name if address == name else f"{name} ({address})"
    return f"{place}: " + cause.format(
        known_as=address if port == "22" else f"[{address}]:{port}",
        user=user or "the connecting user",
        detail=_detail(text),
        jump=_detail(text.partition("kex_exchange_identification")[0]),
        configuration=_detail(re.split(r"\S*: terminating, ", text)[0]),
        python=python or "/usr/bin/python3",
        address=address,
        port=port,
        core=core,
    )


class FilterModule:
    """The filter, by name."""

    def filters(self):
        """Names as used in templates."""
        return {"ssh_failure": ssh_failure}
