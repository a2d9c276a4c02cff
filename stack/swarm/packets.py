"""Find how large the packets of the overlay networks may be (their MTU)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stack.engine.engine import Engine
from stack.errors import Refused
from stack.machines import routes
from stack.swarm.fleet import Member
from stack.swarm.names import OF_STACK
from stack.swarm.networks import find_networks

# What Docker uses unless it is told: that of Ethernet, less the headers of VXLAN.
ETHERNET, HEADERS = 1500, 50
USUAL = ETHERNET - HEADERS


def least_mtu(member: Member, members: Sequence[Member]) -> int:
    """Return the MTU from a machine to the others, in bytes, and at most that of Ethernet."""
    others = [other.private for other in members if other is not member and other.private]
    found = routes.to_peers(member.machine, others) if others else []
    return min([ETHERNET, *(route.mtu for route in found)])


def overlay_mtu(engine: Engine, members: Sequence[Member]) -> int:
    """Return the MTU of the stack's networks, or the one that they need on these machines.

    Raises Refused if they exist with a larger one: large packets would be lost.
    """
    with ThreadPoolExecutor(len(members)) as pool:
        possible = min(pool.map(lambda member: least_mtu(member, members), members)) - HEADERS
    there = {network.name: network.mtu or USUAL for network in find_networks(engine, OF_STACK)}
    for name, mtu in there.items():
        if mtu > possible:
            raise Refused(f"{name} sends packets of {mtu} bytes, and the network between the "
                          f"machines takes {possible + HEADERS}, {HEADERS} of them for headers: "
                          "large answers would never arrive",
                          "./fab destroy, which keeps the data, then ./fab deploy")
    return min(there.values(), default=possible)
