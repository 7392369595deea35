# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter labredes.pbx.stale_hba: which rules of pg_hba.conf let in somebody who is no longer wanted."""

from __future__ import annotations

import ipaddress

DOCUMENTATION = """
name: stale_hba
short_description: Rules of pg_hba.conf for our databases from networks that are not wanted
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Picks from the rules that a pg_hba.conf has those for one of the databases and users of the wanted rules
    whose network is none of theirs. Rules for other databases, for all users or for local sockets are no
    concern of it.
options:
  _input:
    description: Rules as community.postgresql.postgresql_pg_hba returns them in C(pg_hba).
    type: list
    elements: dict
    required: true
  wanted:
    description: Rules as the same module takes them in C(rules).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = """
- name: Keep out who is no longer let in
  community.postgresql.postgresql_pg_hba:
    dest: /etc/postgresql/13/main/pg_hba.conf
    state: absent
    rules: "{{ hba.pg_hba | labredes.pbx.stale_hba(rules) }}"
"""

RETURN = """
_value:
  description: Rules as the module takes them with C(state=absent).
  type: list
  elements: dict
"""


def _network(source: str | None) -> object:
    """A source in a form that compares; what is no network, such as samehost, is compared as it is written."""
    try:
        return ipaddress.ip_network(source, strict=False)
    except ValueError:
        return source


def stale_hba(present: list[dict], wanted: list[dict]) -> list[dict]:
    """The rules among `present` for a database and user of `wanted` but for none of their networks."""
    known = {(rule["databases"], rule["users"], rule["contype"], _network(rule["source"])) for rule in wanted}
    ours = {key[:2] for key in known}
    return [
        {
            "contype": rule["type"],
            "databases": rule["db"],
            "users": rule["usr"],
            "source": rule["src"],
            "method": rule["method"],
        }
        for rule in present
        if rule["type"] != "local"
        and (rule["db"], rule["usr"]) in ours
        and (rule["db"], rule["usr"], rule["type"], _network(rule["src"])) not in known
    ]


class FilterModule:
    """Ansible's way to the filter."""

    def filters(self) -> dict:
        return {"stale_hba": stale_hba}
