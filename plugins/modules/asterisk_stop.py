#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module labredes.pbx.asterisk_stop: see DOCUMENTATION."""

DOCUMENTATION = r"""
module: asterisk_stop
short_description: Stop Asterisk when nobody is talking
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - While there are calls, Asterisk refuses new ones and this module waits for their end, up to O(seconds). After that
    Asterisk accepts calls again, and the module fails with the names of those who talk.
  - New calls may be held from the moment of the stop. Their datagrams and connections are dropped, so that a phone
    tries again for half a minute, as SIP and TCP do, instead of getting an error. The kernel ends this by itself.
options:
  seconds: {description: Longest wait for the end of calls., type: int, default: 0}
  end_calls: {description: Whether calls that go on after that are ended., type: bool, default: false}
  hold: {description: "Seconds for which new calls are held, unless the table is deleted.", type: int, default: 0}
  ports: {description: Ports at which calls come in., type: list, elements: int, default: []}
attributes:
  check_mode: {support: full, description: Only reports whether Asterisk would be stopped.}
"""

EXAMPLES = r"""
- name: Stop Asterisk when the calls have ended
  labredes.pbx.asterisk_stop:
    seconds: 300
    hold: 90
    ports: [5060, 5061]
"""

RETURN = r"""
waited: {description: Seconds that it took until nobody was talking., returned: success, type: float}
held: {description: Whether new calls are held., returned: success, type: bool}
ended: {description: The calls that were ended., returned: success, type: list, elements: str}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.labredes.pbx.plugins.module_utils.asterisk_cli import (
    AsteriskError,
    begin,
    calls,
    cli,
    in_progress,
)
from ansible_collections.labredes.pbx.plugins.module_utils.read_files import unit_state

UNIT = "asterisk.service"
PAUSE = 0.1
TABLE = "inet labredes_hold"
# Loopback is left out: the verification calls from there.
RULES = """add table {table}
delete table {table}
table {table} {{
    set ports {{ type inet_service; flags timeout; elements = {{ {elements} }} }}
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname != "lo" udp dport @ports drop
        iifname != "lo" tcp dport @ports tcp flags & (syn | ack) == syn drop
    }}
}}
"""


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "seconds": {"type": "int", "default": 0},
            "end_calls": {"type": "bool", "default": False},
            "hold": {"type": "int", "default": 0},
            "ports": {"type": "list", "elements": "int", "default": []},
        },
        supports_check_mode=True,
    )
    state = unit_state(UNIT)["ActiveState"]
    if state in ("inactive", "failed"):
        module.exit_json(changed=False, waited=0, held=False, ended=[])
    if module.check_mode:
        module.exit_json(changed=True, waited=0, held=False, ended=[])
    try:
        module.exit_json(changed=True, **stop(module, state))
    except AsteriskError as problem:
        module.fail_json(msg=f"{problem}.")


def stop(module, state):
    """Wait, hold, stop; returns the module's result."""
    begun, end_calls = time.monotonic(), module.params["end_calls"]
    held, talking = False, []  # type: tuple[bool, list]
    try:
        if state == "active":  # a run that was killed may have left it draining
            cli("core abort shutdown", 10)
        # One that is starting, again and again perhaps, has none.
        talking = calls() if state == "active" else []
        if not talking:
            held = hold(module)
            # A call that has come in since the look goes on.
            talking = calls() if state == "active" else []
        if talking:
            release(module, held)
            held = False
            talking = drained(module.params["seconds"])
        if talking and not end_calls:
            raise AsteriskError(
                f"{in_progress(talking)}, so Asterisk is not stopped and nothing is changed; run again when the calls "
                "have ended, or with -e labredes_end_calls=true, which ends them"
            )
    except AsteriskError as problem:
        if not end_calls:
            release(module, held)
            if talking:
                raise
            raise AsteriskError(f"{problem}; or run again with -e labredes_end_calls=true") from None
    waited = time.monotonic() - begun
    held = held or hold(module)
    # One that does not end by itself is killed, since phones wait.
    code, _out, complaint = module.run_command(["timeout", "10", "systemctl", "stop", UNIT])
    if code:
        module.run_command(["systemctl", "kill", "--signal=KILL", UNIT])
        code, _out, complaint = module.run_command(["timeout", "30", "systemctl", "stop", UNIT])
    if code:
        raise AsteriskError(f"systemd cannot stop {UNIT} ({' '.join(complaint.split())})")
    return {"waited": round(waited, 1), "held": held, "ended": talking}


def drained(seconds):
    """Have Asterisk refuse new calls until nobody is talking; returns the calls that go on after so many seconds."""
    if seconds <= 0:
        return calls()
    deadline = time.monotonic() + seconds
    # It answers when Asterisk has ended; until then Asterisk shows no calls, and ends with the last of them.
    asked = begin("core stop gracefully")
    while unit_state(UNIT)["ActiveState"] == "active":
        if time.monotonic() > deadline:
            try:
                cli("core abort shutdown")
                return calls()
            except AsteriskError:
                if unit_state(UNIT)["ActiveState"] == "active":
                    raise
                return []  # it has ended at this moment
            finally:
                asked.kill()
                asked.wait()
        time.sleep(PAUSE)
    asked.wait()
    return []


def hold(module):
    """Drop new calls from other machines; returns whether that is possible, for which nftables has to be there."""
    seconds, ports = module.params["hold"], module.params["ports"]
    nft = module.get_bin_path("nft")
    if not (seconds and ports and nft):
        return False
    elements = ", ".join(f"{port} timeout {seconds}s" for port in sorted(set(ports)))
    return module.run_command([nft, "-f", "-"], data=RULES.format(table=TABLE, elements=elements))[0] == 0


def release(module, held):
    """Let calls in again."""
    if held:
        module.run_command(["nft", "delete", "table", *TABLE.split()])


if __name__ == "__main__":
    main()
