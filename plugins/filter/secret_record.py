# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that compare the controller's secrets, as lookup secret inspects them, with the digests on the host."""

from __future__ import annotations

import hmac
import json
import secrets


def kept_record(read):
    """The record that the host keeps, from the result of reading it; without one only whether the host was set up."""
    # sudo says so before it where the name of the host cannot be resolved.
    lines = [line for line in read.get("stdout", "").splitlines() if not line.startswith("sudo: ")]
    output, none = "\n".join(lines).strip(), {"salt": secrets.token_hex(16), "digests": {}}
    kept = output.startswith("{") or read.get("rc")
    return json.loads(output) if kept else {**none, "provisioned": output.startswith("/")}


def secret_record(found, read, pending=()):
    """The record for the host: a salted digest of each secret, empty for one that is still to be generated."""
    salt, digests = kept_record(read)["salt"], {}
    for secret in found:
        digest = hmac.new(salt.encode(), f"{secret['name']} {secret['value']}".encode(), "sha256").hexdigest()
        digests[secret["name"]] = digest if secret["value"] and secret["name"] not in pending else ""
    return {"salt": salt, "digests": digests}


def compare_secrets(found, read, rotate=()):
    """The names of the administrator's own and of generated secrets, and the files that are lacking or replaced."""
    rotate = set(rotate.replace(" ", "").split(",") if isinstance(rotate, str) else rotate)
    result = {"errors": [secret["error"] for secret in found if secret["error"]]}
    result |= {"own": [], "generated": [], "lacking": [], "replaced": [], "steps": []}
    try:
        kept = kept_record(read)
        known, new = kept["digests"], secret_record(found, read)["digests"]
    except (ValueError, KeyError):
        cure = "restore /var/lib/labredes/secrets.json there or remove it"
        return {**result, "errors": [f"The record of the secrets that the host uses is damaged; {cure}."]}
    for secret in [] if result["errors"] else found:
        name, before = secret["name"], known.get(secret["name"])
        differs = before is not None and not hmac.compare_digest(str(before), new[name])
        result["own" if secret["set"] else "generated"].append(name)
        # A new value that the administrator sets is of concern here only if several services have to change it at once.
        if (differs and secret["steps"][1:]) if secret["set"] else (before == "" or rotate & {name, "all"}):
            result["replaced"].append(secret["file"])
            result["steps"] += secret["steps"]
        elif not secret["set"] and (differs or (kept.get("provisioned") and not secret["kept"])):
            result["lacking"].append(secret["file"])
    return {**result, "changed": known != new}


class FilterModule:
    """The filters, by name."""

    def filters(self):
        """The names that templates use."""
        return {"compare_secrets": compare_secrets, "secret_record": secret_record}
