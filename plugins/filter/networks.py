# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters for addresses and networks, from Python's library alone."""

from __future__ import annotations

import ipaddress

DOCUMENTATION = """
name: outside
short_description: Networks that lie in none of others
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Returns those networks or addresses that lie in none of the others.
options:
  _input:
    description: Networks or addresses.
    type: list
    elements: str
    required: true
  others:
    description: Networks.
    type: list
    elements: str
    required: true
"""


def ip_version(text):
    """4 or 6 for the address of a host, 0 for anything else."""
    try:
        address = ipaddress.ip_address(str(text))
    except ValueError:
        return 0
    odd = address.is_multicast or getattr(address, "scope_id", None) or getattr(address, "ipv4_mapped", None)
    return 0 if odd else address.version


def outside(networks, others):
    """Those networks that lie in none of the others."""
    inside = [ipaddress.ip_network(str(other)) for other in others]
    return [
        text
        for text in networks
        for network in [ipaddress.ip_network(str(text))]
        if not any(network[0] in other and network[-1] in other for other in inside)
    ]


class FilterModule:
    """The filters, by name."""

    def filters(self):
        """Names as used in templates."""
        return {"ip_version": ip_version, "outside": outside}
