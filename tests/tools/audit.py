#!/usr/bin/env python3
"""Audits a lab host with ssh-audit, systemd-analyze, Lynis and SIPVicious: `make audit`.

Prints one JSON object, each figure beside its limit, and exits with code 1 and a sentence for each missed limit.
ssh-audit and SIPVicious come from requirements.txt, Lynis is installed on the lab host from its own distribution.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "tests/site")]

from lab_host import LabError, LabHost  # noqa: E402
from outside_host import OutsideHost  # noqa: E402

TOOLS = Path(sys.executable).parent
# ssh-audit's hardened policy that is nearest to each platform.
POLICIES = {
    ("debian", "11"): "Hardened Ubuntu Server 20.04 LTS (version 5)",
    ("debian", "12"): "Hardened Debian 12 (version 2)",
    # That for Debian 13 leaves out every client before OpenSSH 8.5.
    ("debian", "13"): "Hardened Ubuntu Server 24.04 LTS (version 2)",
    ("ubuntu", "18.04"): "Hardened Ubuntu Server 18.04 LTS (version 4)",
    ("ubuntu", "20.04"): "Hardened Ubuntu Server 20.04 LTS (version 5)",
    ("ubuntu", "22.04"): "Hardened Ubuntu Server 22.04 LTS (version 6)",
    ("ubuntu", "24.04"): "Hardened Ubuntu Server 24.04 LTS (version 2)",
}
EXPOSURE = 2.0
LYNIS = 80
JAIL = "labredes-asterisk-udp"


def ssh_audit(lab: LabHost) -> dict[str, object]:
    """ssh-audit's policy, and its failures and warnings without one."""
    release = dict(line.split("=", 1) for line in lab.run("cat /etc/os-release").splitlines() if "=" in line)
    policy = POLICIES[release["ID"], release["VERSION_ID"].strip('"')]
    command = [TOOLS / "ssh-audit", "--skip-rate-test", "-p", str(lab.port)]
    passed = (
        subprocess.run([*command, "-P", policy, lab.address], capture_output=True, timeout=60, check=False).returncode
        == 0
    )
    shown = subprocess.run(
        [*command, "--json", lab.address], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    algorithms = [entry for kind in ("kex", "key", "enc", "mac") for entry in json.loads(shown)[kind]]
    warnings = [note for entry in algorithms for note in entry.get("notes", {}).get("warn", [])]
    return {
        "policy": policy,
        "passed": passed,
        "failures": sum(len(entry.get("notes", {}).get("fail", [])) for entry in algorithms),
        "warnings": len(warnings),
        "warnings_but_of_quantum": [note for note in warnings if "post-quantum" not in note],
    }


def exposure(lab: LabHost) -> float:
    """The exposure of Asterisk's unit by `systemd-analyze security`."""
    return float(
        re.search(
            r"Overall exposure level for \S+: ([0-9.]+)",
            lab.run("systemd-analyze security --no-pager asterisk.service"),
        )[1]
    )


def lynis(lab: LabHost) -> int:
    """Lynis's hardening index."""
    lab.run("DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends lynis", 300)
    report = lab.run("cd /var/tmp && lynis audit system --quick --no-colors", 300)
    return int(re.search(r"Hardening index : (\d+)", report)[1])


def slowed_down(lab: LabHost, address: str) -> bool:
    """Whether an address is slowed down within three seconds."""
    for _ in range(6):
        if address in lab.run(f"fail2ban-client get {JAIL} banip").split():
            return True
        time.sleep(0.5)
    return False


def brute_force(lab: LabHost) -> dict[str, dict[str, object]]:
    """SIPVicious's search for extensions, then for the password of one, from a host in no administrator's network.

    svwar gives up after two requests, because existing and unknown extensions get the same answer; so it runs again. It
    tries no password, so it is not slowed down.
    """
    tried = {
        "svwar": [
            ["-m", method, "-e", f"{first}-{first + 99}"]
            for first in (100, 6000, 7000)
            for method in ("REGISTER", "INVITE")
        ],
        "svcrack": [["-u", "6001", "-r", "1-400"]],
    }
    found = {}
    with OutsideHost(lab.directory) as outside:
        package = next(TOOLS.parent.glob("lib/python*/site-packages/sipvicious"))
        subprocess.run(["podman", "cp", package, f"{outside.name}:/opt/sipvicious"], check=True, capture_output=True)
        for program, runs in tried.items():
            found[program] = {"runs": 0, "found": [], "slowed_down": False}
            for words in runs:
                output = outside.run(
                    "timeout",
                    "60",
                    "env",
                    "PYTHONPATH=/opt",
                    "python3",
                    "-m",
                    f"sipvicious.{program}",
                    *words,
                    lab.address,
                    seconds=90,
                )
                rows = re.findall(r"^\| (\S+)\s+\| (\S+)", output, re.MULTILINE)
                found[program]["runs"] += 1
                found[program]["found"] += [row[0] for row in rows if row[0] not in ("Extension", "------")]
                found[program]["slowed_down"] = slowed_down(lab, outside.address)
                if found[program]["slowed_down"]:
                    break
            lab.run(f"fail2ban-client set {JAIL} unbanip {outside.address}")
    return found


def lock_outs() -> dict[str, int]:
    """The tests that kill a change of SSH: their number, and the number of those that failed."""
    report = ROOT / ".lab" / "ssh-access.xml"
    report.parent.mkdir(exist_ok=True)
    subprocess.run(
        [TOOLS / "pytest", "-q", ROOT / "tests/hosts/test_ssh_access.py", f"--junit-xml={report}"],
        cwd=ROOT,
        check=False,
        stdout=sys.stderr,
    )
    suite = ElementTree.parse(report).getroot().find("testsuite")
    return {"tried": int(suite.get("tests")), "lock_outs": int(suite.get("failures")) + int(suite.get("errors"))}


def main() -> int:
    """Measure, print, and report missed limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=ROOT / ".lab", help="the lab's directory")
    parser.add_argument("--without-kills", action="store_true", help="leave out the runs that are killed (5 minutes)")
    options = parser.parse_args()
    try:
        lab = LabHost(options.dir.resolve())
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    ssh, unit, index, sip = ssh_audit(lab), exposure(lab), lynis(lab), brute_force(lab)
    figures = {
        "ssh_audit": ssh,
        "unit_exposure": unit,
        "unit_exposure_at_most": EXPOSURE,
        "lynis": index,
        "lynis_at_least": LYNIS,
        **sip,
    }
    missed = [
        not ssh["passed"] and f"sshd does not pass ssh-audit's {ssh['policy']}",
        ssh["failures"] and f"ssh-audit finds {ssh['failures']} failures",
        ssh["warnings_but_of_quantum"] and f"ssh-audit warns: {', '.join(ssh['warnings_but_of_quantum'])}",
        unit > EXPOSURE and f"asterisk.service is exposed by {unit}, more than {EXPOSURE}",
        index < LYNIS and f"Lynis gives {index}, less than {LYNIS}",
        *(result["found"] and f"{program} found {', '.join(result['found'])}" for program, result in sip.items()),
        not sip["svcrack"]["slowed_down"] and "svcrack was not slowed down",
    ]
    if not options.without_kills:
        figures["ssh_access"] = lock_outs()
        missed.append(figures["ssh_access"]["lock_outs"] and f"{figures['ssh_access']['lock_outs']} lock-outs")
    print(json.dumps(figures, indent=2))
    for sentence in filter(None, missed):
        print(f"audit: {sentence}", file=sys.stderr)
    return 1 if any(missed) else 0


if __name__ == "__main__":
    raise SystemExit(main())
