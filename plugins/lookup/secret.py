# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lookup of an exchange's secrets: the user's own, or one made once and kept on the controller."""

from __future__ import annotations

DOCUMENTATION = """
name: secret
short_description: A secret of the user's, or one generated once and kept on the controller
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Returns the value that the user gave in the dictionary C(labredes_secrets) under the secret's name.
  - A name that is not there is generated once, at random, and kept in a file of mode 0600 under
    O(directory)/host/name on the controller; the next run reads it back.
  - In check mode nothing is written; a secret that does not exist yet is made up for the run.
  - A weak value is refused, and so is one with a character that would end a value, start a comment or
    be expanded in Asterisk's configuration files. Letters, digits and C(._~!*+^@%/:?=-) are accepted.
options:
  _terms:
    description: Names of the secrets, such as V(database_password), V(phone_6001) or V(mailbox_6001).
    required: true
  length:
    description: Characters of a generated secret.
    type: int
    default: 32
  chars:
    description:
      - Character sets of a generated secret, names of Python's C(string) module separated by commas.
      - With V(digits) the secret is a PIN, and the rules for a PIN apply to it.
    type: str
    default: ascii_letters,digits
  host:
    description: Host that the secret belongs to.
    type: str
    vars:
      - name: inventory_hostname
  values:
    description:
      - Secrets the user sets himself, by name, as quoted strings.
      - Read from the variable C(labredes_secrets); values may be vault-encrypted or templates.
    type: raw
    vars:
      - name: labredes_secrets
  directory:
    description: Directory on the controller that holds what was generated; it is made with mode 0700.
    type: str
    default: ~/.local/state/labredes.pbx/secrets
    vars:
      - name: labredes_secrets_dir
  allow_weak:
    description: Accept weak values all the same, for a throwaway exchange.
    type: bool
    default: false
    vars:
      - name: labredes_allow_weak_secrets
  check:
    description:
      - Return the sentence with which the secret would be refused instead of the secret, empty when it can serve.
        A check can then say that sentence alone, and no secret is in what it prints.
    type: bool
    default: false
notes:
  - Names and hosts are percent-encoded before they become file names, so no name leaves the directory.
  - A task with C(no_log) hides this plugin's message as well; use O(check) in an assertion without C(no_log)
    before, and its sentence reaches the user.
"""

EXAMPLES = """
- name: Password of the database role
  community.postgresql.postgresql_user:
    name: asterisk
    password: "{{ lookup('labredes.pbx.secret', 'database_password') }}"
  no_log: true

- name: Check the user's value before any host is touched
  ansible.builtin.assert:
    that: lookup('labredes.pbx.secret', 'database_password', check=true) | length == 0
    fail_msg: "{{ lookup('labredes.pbx.secret', 'database_password', check=true) }}"

- name: A mailbox's PIN
  ansible.builtin.set_fact:
    pin: "{{ lookup('labredes.pbx.secret', 'mailbox_6001', length=6, chars='digits') }}"
  no_log: true

- name: The same password on an exchange whose database is elsewhere
  ansible.builtin.set_fact:
    database_password: "{{ lookup('labredes.pbx.secret', 'database_password', host=groups['databases'][0]) }}"
  no_log: true
"""

RETURN = """
_raw:
  description: The secrets, in the order of the names, or with O(check) what is wrong with them.
  type: list
  elements: str
"""

import os
import re
import tempfile
from urllib.parse import quote

from ansible.errors import AnsibleLookupError
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

SHORTEST_PASSWORD = 12
SHORTEST_PIN = 4
# voicemail keeps a password in 80 bytes with its closing zero, the tightest place of all.
LONGEST = 79
ALLOWED = re.compile(r"[A-Za-z0-9._~!*+^@%/:?=-]+", re.ASCII)
# What people write when they mean to change it later; "obelix" is the hand-made original's.
WORDS = (
    "administrator",
    "admin",
    "asterisk",
    "changeme",
    "default",
    "freepbx",
    "insecure",
    "unsecure",
    "labredes",
    "letmein",
    "master",
    "obelix",
    "password",
    "passwd",
    "pass",
    "pbx",
    "qwertyuiop",
    "qwerty",
    "secret",
    "test",
    "user",
    "voip",
    "welcome",
    "abcdefghijkl",
    "contrasena",
    "contraseña",
    "clave",
    "secreto",
)


def weakness(name: str, value: str, pin: bool) -> str | None:
    """Say in a few words why a secret is weak; None when it is not.

    name: the secret's name; the words and numbers in it are guessed first.
    pin: the rules for digits dialled on a phone, instead of those for a password.
    """
    parts = [part for part in re.split(r"[^a-z0-9]+", name.lower()) if part]
    if pin:
        if not value.isdigit():
            return "is a PIN and may hold digits only"
        if len(value) < SHORTEST_PIN:
            return f"has {len(value)} digits, fewer than {SHORTEST_PIN}"
        if value in parts:
            return "is the number it belongs to"
        steps = {(int(b) - int(a)) % 10 for a, b in zip(value, value[1:])}
        if len(steps) == 1 and steps <= {0, 1, 9}:
            return "is one digit repeated or digits in a row"
        return None
    if len(value) < SHORTEST_PASSWORD:
        return f"has {len(value)} characters, fewer than {SHORTEST_PASSWORD}"
    if len(set(value)) < 5:
        return "repeats a few characters"
    rest = value.lower()
    for word in sorted(WORDS + tuple(parts), key=len, reverse=True):
        rest = rest.replace(word, "")
    if len(re.sub(r"[^a-z]", "", rest)) < 4 and rest != value.lower():
        return "is made of words that are guessed first"
    if not re.search(r"[a-z]", rest) and len(value) < 20:
        return "has no letters and fewer than 20 characters"
    return None


def fault(name: str, value: object, pin: bool, allow_weak: bool) -> str | None:
    """Say in a few words why a value cannot serve as this secret; None when it can."""
    if not isinstance(value, str):
        return "is not a string; put it in quotes, so that no leading zero is lost"
    if not value:
        return "is empty"
    if len(value) > LONGEST:
        return f"has more than {LONGEST} characters, which Asterisk would cut off"
    if not ALLOWED.fullmatch(value):
        return "holds a character other than letters, digits and ._~!*+^@%/:?=- (others break Asterisk's files)"
    weak = None if allow_weak else weakness(name, value, pin)
    return (
        weak
        and f"{weak}; choose a stronger one, leave it out to have one generated, "
        "or set labredes_allow_weak_secrets: true"
    )


def file_name(name: str) -> str:
    """A file name that is one to one with a secret's or a host's name and cannot leave its directory."""
    quoted = quote(name, safe="")
    return quoted.replace(".", "%2E") if not quoted.strip(".") else quoted


def keep(path: str, value: str) -> None:
    """Write a secret unless another run was first; the file appears whole or not at all.

    A link is made only if the name is free, so neither a lock that a killed run leaves behind nor a
    half-written file can come of it.
    """
    handle, draft = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".new-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(value + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)


class LookupModule(LookupBase):
    """The lookup plugin; see DOCUMENTATION."""

    def run(self, terms, variables=None, **kwargs):
        """Return one secret a term. Raises AnsibleLookupError with one sentence for a value that cannot serve."""
        variables = variables or {}
        self.set_options(var_options=variables, direct=kwargs)
        host = self.get_option("host")
        if not host:
            raise AnsibleLookupError("labredes.pbx.secret was called outside a play without host=.")
        values, check_mode = self._own_values(), bool(variables.get("ansible_check_mode"))
        answers = []
        for term in terms:
            try:
                answers.append(self._secret(to_text(term), host, values, check_mode))
            except AnsibleLookupError as error:
                if not self.get_option("check"):
                    raise
                answers.append(str(error))
            else:
                if self.get_option("check"):
                    answers[-1] = ""
        return answers

    def _own_values(self) -> dict:
        """The user's dictionary; its values stay templates, so that one bad value spoils only itself."""
        values = self.get_option("values") or {}
        if isinstance(values, str):
            values = self._templar.template(values)
        if not isinstance(values, dict):
            raise AnsibleLookupError('labredes_secrets is not a dictionary; write it as name: "value" lines.')
        return values

    def _secret(self, name: str, host: str, values: dict, check_mode: bool) -> str:
        pin = self.get_option("chars") == "digits"
        allow_weak = self.get_option("allow_weak")
        if name in values:
            value = self._templar.template(values[name], fail_on_undefined=True)
            if hasattr(value, "__ENCRYPTED__"):
                value = to_text(value)
            where = f"labredes_secrets.{name}"
        else:
            path = os.path.join(os.path.expanduser(self.get_option("directory")), file_name(host), file_name(name))
            value = self._kept(path, name, pin, check_mode)
            where = f"the secret in {path}"
        reason = fault(name, value, pin, allow_weak)
        if reason:
            raise AnsibleLookupError(f"{host}: {where} {reason}.")
        return str(value)

    def _kept(self, path: str, name: str, pin: bool, check_mode: bool) -> str:
        """Read the secret of this file, made first if there is none."""
        try:
            if not os.path.exists(path):
                fresh = self._fresh(name, pin)
                if check_mode:
                    return fresh
                for folder in (os.path.dirname(os.path.dirname(path)), os.path.dirname(path)):
                    os.makedirs(folder, mode=0o700, exist_ok=True)
                keep(path, fresh)
            with open(path, encoding="utf-8") as stream:
                return stream.read().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise AnsibleLookupError(
                f"The secret {path} cannot be kept ({error}); make it accessible or set labredes_secrets_dir."
            ) from error

    def _fresh(self, name: str, pin: bool) -> str:
        """A random secret that is not weak by chance."""
        maker = lookup_loader.get("ansible.builtin.password", loader=self._loader, templar=self._templar)
        for _attempt in range(100):
            value = to_text(
                maker.run(["/dev/null"], {}, length=self.get_option("length"), chars=self.get_option("chars"))[0]
            )
            if not weakness(name, value, pin):
                return value
        raise AnsibleLookupError(
            f"No strong secret {name} fits length={self.get_option('length')} and chars={self.get_option('chars')}."
        )
