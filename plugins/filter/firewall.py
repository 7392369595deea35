# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of role firewall: networks and ports for nftables 0.8, which cannot merge intervals, and checks of rules."""

from __future__ import annotations

import ipaddress
import re

DOCUMENTATION = """
name: firewall_problems
short_description: Check firewall rules and networks
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Takes rules, as in C(firewall_rules), and returns one sentence for each problem in them or in the lists of
    networks; an empty list means that they are valid.
options:
  _input:
    description: The rules.
    type: list
    elements: dict
    required: true
  networks:
    description: Lists of networks, by the name of their variable.
    type: dict
  variable:
    description: The name of the rules' variable.
    type: str
    default: firewall_extra_rules
"""


def network_problem(where, text):
    """One sentence about an invalid network, or None."""
    try:
        ipaddress.ip_network(str(text))
    except ValueError:
        try:
            meant = ipaddress.ip_interface(str(text))
        except ValueError:
            return f"{where} has {text}, which is not a network; write it as 192.0.2.0/24 or 2001:db8::/32."
        return f"{where} has {text}; write {meant.network} for the network, or {meant.ip} for the one address."
    return None


def firewall_problems(rules, networks=None, variable="firewall_extra_rules"):
    """One sentence for each problem, with the entry and the cure."""
    problems = [network_problem(name, text) for name, listed in (networks or {}).items() for text in listed]
    for place, rule in enumerate(rules):
        where = f"{variable}[{place}]"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,40}", str(rule["name"])):
            problems.append(
                f"{where}: the name {rule['name']!r} is not valid; use only letters, digits, spaces and -._ in it."
            )
        for ports in rule["ports"]:
            ends = [int(end) if end.isdigit() else 0 for end in str(ports).split("-")]
            if len(ends) > 2 or not all(0 < end < 65536 for end in ends) or ends != sorted(ends):
                problems.append(
                    f"{where} ({rule['name']}): {ports} is not a port; give a number from 1 to 65535, or a range "
                    "such as 10000-11999."
                )
        if rule.get("connections") is not None and int(rule["connections"]) < 1:
            problems.append(f"{where} ({rule['name']}): connections is {rule['connections']}; give a number above 0.")
        problems += [network_problem(f"{where} ({rule['name']})", text) for text in rule["networks"]]
    return [problem for problem in problems if problem]


def networks_of(networks, version):
    """The networks of IP version 4 or 6, merged, since a set of nftables allows no overlap."""
    family = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    known = [ipaddress.ip_network(str(text), strict=False) for text in networks]
    merged = ipaddress.collapse_addresses([one for one in known if isinstance(one, family)])  # type: ignore[type-var]
    return [str(network) for network in merged]


def port_ranges(ports):
    """The ports and ranges, sorted and merged, since a set of nftables allows no overlap."""
    merged: list[list[int]] = []
    for first, last in sorted((int(str(entry).split("-")[0]), int(str(entry).split("-")[-1])) for entry in ports):
        if merged and first <= merged[-1][1] + 1:
            merged[-1][1] = max(last, merged[-1][1])
        else:
            merged.append([first, last])
    return [str(first) if first == last else f"{first}-{last}" for first, last in merged]


def firewall_allows(rules, address, port):
    """Whether the rules allow this address to connect to this TCP port."""
    address = ipaddress.ip_address(str(address).partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    for rule in rules:
        ranges = [[int(end) for end in entry.split("-")] for entry in port_ranges(rule["ports"])]
        if (
            rule["protocol"] == "tcp"
            and any(ends[0] <= int(port) <= ends[-1] for ends in ranges)
            and any(address in ipaddress.ip_network(str(text), strict=False) for text in rule["networks"])
        ):
            return True
    return False


class FilterModule:
    """The filters, by name."""

    def filters(self):
        """Names as used in templates."""
        return {
            "firewall_problems": firewall_problems,
            "firewall_allows": firewall_allows,
            "networks_of": networks_of,
            "port_ranges": port_ranges,
        }
