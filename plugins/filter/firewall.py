# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of role firewall: networks and ports for nftables 0.8, which cannot merge intervals."""

from __future__ import annotations

import ipaddress


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
        return {"firewall_allows": firewall_allows, "networks_of": networks_of, "port_ranges": port_ranges}
