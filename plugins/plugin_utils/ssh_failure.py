# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What went wrong between the controller and a host, in one sentence with its cure."""

from __future__ import annotations

import re

# (pattern in what ssh, sudo or the remote shell said, the sentence's second half); the first match counts.
CAUSES = (
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
        "sudo is not installed; install it, or set ansible_become: false if {user} is root.",
    ),
    (
        r"python\S*: (command )?not found|python\S*: No such file|interpreter .* was not found|No such file.*python",
        "Python 3 is not at {python}; install python3 or set ansible_python_interpreter.",
    ),
    (r"[Nn]o space left on device", "its disk is full; make room on / and /tmp."),
    (
        r"Could not resolve hostname|Name or service not known|nodename nor servname|Temporary failure in name resolution",
        "the name {address} is not known; check ansible_host.",
    ),
    (
        r"kex_exchange_identification|Connection (closed|reset) by|no matching (host key|key exchange|cipher|mac)",
        "its SSH server ended the conversation ({detail}); it may ban this address or speak no common algorithm.",
    ),
    (
        r"timed out|No route to host|Connection refused|Network is unreachable",
        "nothing answers SSH on port {port}; check that the host is up and ansible_host is right.",
    ),
)


def place(name: str, address: str | None) -> str:
    """How a sentence names the host: `pbx1 (192.0.2.1)`, or `pbx1` where both are the same."""
    return name if address in (None, "", name) else f"{name} ({address})"


def _detail(text: str) -> str:
    """The last line of what was said that is neither empty nor decoration."""
    lines = [line.strip(" @\r") for line in text.splitlines()]
    lines = [line for line in lines if re.search(r"\w", line) and not line.startswith("Warning: Permanently added")]
    return lines[-1][:300] if lines else "no reason given"


def sentence(text: str, name: str, address: str | None, port: object, user: str | None, python: str | None) -> str:
    """Turn what a failed connection or module start printed into one sentence with its cure.

    text: the output of ssh, sudo or the shell; the other arguments are the host's variables.
    """
    known_as = address or name
    if port not in (None, 22, "22"):
        known_as = f"[{known_as}]:{port}"
    for pattern, cure in CAUSES:
        if re.search(pattern, text):
            cure = cure.format(
                known_as=known_as,
                user=user or "the connecting user",
                detail=_detail(text),
                python=python or "/usr/bin/python3",
                address=address or name,
                port=port or 22,
            )
            return f"{place(name, address)}: {cure}"
    return f"{place(name, address)}: {_detail(text)}."
