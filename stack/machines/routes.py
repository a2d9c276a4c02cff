"""Ask a machine how its packets leave it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from stack.machines.machine import Machine

# Prints a line of JSON for the links, and one for each address that there is a route to.
ASK = 'ip -json link show; for peer; do ip -json -4 route get "$peer" || true; done'


@dataclass(frozen=True)
class Route:
    """The way to a peer: the link that takes it, and the largest packet in bytes (MTU)."""

    peer: str
    link: str
    mtu: int


def to_peers(machine: Machine, peers: Sequence[str]) -> list[Route]:
    """Return the kernel's own choice for each address, without those that it can't reach."""
    links, *found = map(json.loads, machine.must(["sh", "-c", ASK, "ask", *peers]).splitlines())
    mtus = {link["ifname"]: int(link["mtu"]) for link in links}
    return [Route(route["dst"], route["dev"], min(
        [mtus[route["dev"]], *(int(metric["mtu"]) for metric in route.get("metrics", ())
                               if "mtu" in metric)])) for route, in found]


def networks(machine: Machine) -> list[IPv4Network]:
    """Return the networks that a machine has a route to, except the default route.

    A VPN that takes all traffic splits the default route into 0.0.0.0/1 and 128.0.0.0/1.
    """
    said = machine.must(["ip", "-4", "route", "show"])
    found = [IPv4Network(line.split()[0]) for line in said.splitlines() if line[:1].isdigit()]
    return [network for network in found if network.prefixlen > 1]
