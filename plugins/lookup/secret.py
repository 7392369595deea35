# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup of secrets: ansible.builtin.password writes in check mode, not atomically, and accepts weak values."""

from __future__ import annotations

DOCUMENTATION = """
name: secret
short_description: A secret from C(labredes_secrets), or one generated once and kept on the controller
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Returns the value in C(labredes_secrets), or one generated once and kept in the file O(directory)/host/name (0600).
    Check mode writes nothing. Weak values and those that would break Asterisk's configuration files are refused.
options:
  _terms: {description: "Names, as V(phone_6001), or dictionaries of C(names) and these options.", required: true}
  length: {description: Length of a generated secret., type: int, default: 32}
  chars:
    description: Characters of a generated secret, as in P(ansible.builtin.password#lookup). V(digits) makes it a PIN.
    type: str
    default: ascii_letters,digits
  host: {description: Host that the secret belongs to., required: true, type: str, vars: [{name: inventory_hostname}]}
  values:
    description: The administrator's own secrets by name, as quoted strings, templates or vault-encrypted strings.
    type: raw
    vars: [{name: labredes_secrets}]
  directory:
    description: Directory on the controller that keeps the generated secrets, created with mode 0700.
    type: str
    default: ~/.local/state/labredes.pbx/secrets
    vars: [{name: labredes_secrets_dir}]
  allow_weak: {description: Accept weak ones., type: bool, default: false, vars: [{name: labredes_allow_weak_secrets}]}
  check: {description: "Return the error message, which is empty for a valid secret.", type: bool, default: false}
  inspect: {description: Return a dictionary of each secret instead., type: bool, default: false}
  generate: {description: Generate a missing one., type: bool, default: true, vars: [{name: __labredes_generate}]}
  replace: {description: Names of secrets to generate anew., type: list, elements: str, default: []}
  rotate: {description: Check mode replaces these., type: list, elements: str, vars: [{name: labredes_rotate_secrets}]}
"""

RETURN = '_raw: {description: "Secrets, error messages or dictionaries, in the order of the names.", type: list}'

import contextlib
import os
import re
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible.errors import AnsibleLookupError
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

SHORTEST_PASSWORD = 12
SHORTEST_PIN = 4
LONGEST = 79  # voicemail keeps a password in 80 bytes, the terminating zero included
ALLOWED = re.compile(r"[A-Za-z0-9._~!*+^@%/:?=-]+", re.ASCII)
PIN = re.compile(r"[0-9]{1,10}", re.ASCII)
WORDS = "administrator|admin|asterisk|changeme|clave|contrasena|default|iloveyou|(?:in|un)secure|labredes|letmein"
WORDS += "|master|pbx|obelix|password|passwd|pass|phone|qwertyuiop|qwerty|asdfghjkl|asdf|zxcvbnm|1qaz|2wsx|secreto"
WORDS += "|secreta|secret|telefono|test|user|voip|welcome"  # of two words, the longer first
DISGUISES = str.maketrans("01345@", "oieasa")  # pa55w0rd is a common word, too


def weakness(name: str, value: str, pin: bool) -> str | None:
    """Why a secret is weak, None when it is not. The parts of its name count as common words."""
    parts = [part for part in re.split(r"[^a-z0-9]+", name.lower()) if part]
    steps = [ord(second) - ord(first) for first, second in pairwise(value)]
    if pin:
        if len(value) < SHORTEST_PIN:
            return f"has {len(value)} digits, fewer than {SHORTEST_PIN}"
        if len(turns := {step % 10 for step in steps}) == 1 and turns <= {0, 1, 9}:
            return "is one digit repeated or digits in a row"
        if len(set(value)) < 3 or value in ("2580", "0852"):
            return "is two digits alone or a column of the keypad"
        return "is the number it belongs to" if value in parts else None
    if len(value) < SHORTEST_PASSWORD:
        return f"has {len(value)} characters, fewer than {SHORTEST_PASSWORD}"
    if len(set(value)) < 5 or value in (value + value)[1:-1]:
        return "repeats a few characters"
    if sum(abs(step) < 2 for step in steps) > len(steps) * 0.7:
        return "is characters in a row"
    for text in (value.lower(), value.lower().translate(DISGUISES)):
        rest = re.sub("|".join([*map(re.escape, parts), WORDS]), "", text)
        if rest != text and len(re.sub(r"[^a-z]", "", rest)) < 4:
            return "consists of common words"
    few = len(value) < 20 and not re.search("[A-Za-z]", value)
    return "has no letters and fewer than 20 characters" if few else None


def fault(name: str, value: object, pin: bool, allow_weak: bool) -> str | None:
    """Why a value cannot be used as this secret, None when it can."""
    if not isinstance(value, str):
        return "is not a string; put it in quotes"
    if not value or len(value) > LONGEST:
        return f"is empty or has more than {LONGEST} characters, which Asterisk would cut off"
    if pin and not PIN.fullmatch(value):
        return "is a PIN and must be 4 to 10 digits"
    if not ALLOWED.fullmatch(value):
        return "contains a character other than letters, digits and ._~!*+^@%/:?=- (others break Asterisk's files)"
    cure = "choose a stronger one, leave it out to have one generated, or set labredes_allow_weak_secrets: true"
    return None if allow_weak or not (weak := weakness(name, value, pin)) else f"{weak}; {cure}"


def keep(path: Path, value: str, replace: bool) -> None:
    """Write a secret unless another run was first; a link is atomic, so a killed run leaves no half-written file."""
    for directory in (path.parent.parent, path.parent):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-") as draft:  # mode 0600
        draft.write(value + "\n")
        draft.flush()
        os.fsync(draft.fileno())
        if replace:
            path.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(draft.name, path)


class LookupModule(LookupBase):
    """The lookup plugin; see DOCUMENTATION."""

    def run(self, terms, variables=None, **kwargs):
        """For each name its secret, with ``check`` an error message, with ``inspect`` a dictionary."""
        answers, variables = [], variables or {}
        for term in terms:
            group = term if isinstance(term, dict) else {"names": [term]}
            own = {option: group[option] for option in group.keys() & {"host", "length", "chars"}}
            self.set_options(var_options=variables, direct={**kwargs, **own})
            answers += [self._answer(to_text(name), group, variables) for name in group["names"]]
        return answers

    def _answer(self, name: str, group: dict[str, Any], variables: dict[str, Any]) -> Any:
        check, inspect = self.get_option("check"), self.get_option("inspect")
        answer = {"steps": [], **group, "name": name, "value": "", "error": ""}
        try:
            answer |= self._secret(name, variables)
        except AnsibleLookupError as error:
            if not (check or inspect):
                raise
            answer["error"] = str(error)
        return answer["error"] if check else answer if inspect else answer["value"]

    def _secret(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        host, values, pin = self.get_option("host"), self.get_option("values"), self.get_option("chars") == "digits"
        hosts = variables.get("hostvars", {})
        if host != variables.get("inventory_hostname") and host in hosts:  # the secrets of the host it belongs to
            values = hosts[host].get("labredes_secrets", values)
        values = self._templar.template(values or {}) if isinstance(values, str) else values or {}
        if not isinstance(values, dict):
            raise AnsibleLookupError('labredes_secrets is not a dictionary; write it as name: "value" lines.')
        # Percent-encoded names cannot leave the directory.
        parts = [quote(part, safe="") if part.strip(".") else part.replace(".", "%2E") for part in (host, name)]
        path = Path(self._templar.template(self.get_option("directory"))).expanduser().joinpath(*parts)
        if name in values:  # the one value is rendered, so that another that is undefined does not matter
            value, where = self._templar.template(values[name], fail_on_undefined=True), f"labredes_secrets.{name}"
            value = to_text(value) if hasattr(value, "__ENCRYPTED__") else value
        else:
            value, where = self._generated(path, name, pin, variables), f"the secret in {path}"
        if value is not None and (reason := fault(name, value, pin, self.get_option("allow_weak"))):
            raise AnsibleLookupError(f"{host}: {where} {reason}.")
        kept = any(path.parent.glob("[!.]*"))
        known = {"host": host, "set": name in values, "file": str(path), "kept": kept}
        return {**known, "value": str(value or "")}

    def _generated(self, path: Path, name: str, pin: bool, variables: dict[str, Any]) -> str | None:
        """The secret of a file; generated if there is none or it is replaced, and again if it is weak by chance."""
        check_mode, replace = variables.get("ansible_check_mode"), name in (self.get_option("replace") or [])
        try:
            anew = replace or (check_mode and {name, "all"} & set(self.get_option("rotate") or []))
            if not self.get_option("generate") and not path.exists():
                return None
            if self.get_option("generate") and (anew or not path.exists()):
                password = lookup_loader.get("ansible.builtin.password", loader=self._loader, templar=self._templar)
                options = {option: self.get_option(option) for option in ("length", "chars")}
                fresh = (to_text(password.run(["/dev/null"], {}, **options)[0]) for _attempt in range(100))
                strong = next((value for value in fresh if not weakness(name, value, pin)), "")
                if check_mode or not strong:
                    return strong
                keep(path, strong, replace)
            return path.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            cure = "make it accessible, free disk space or set labredes_secrets_dir"
            raise AnsibleLookupError(f"The secret {path} cannot be read or written ({error}); {cure}.") from error
