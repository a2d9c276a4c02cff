"""Keep Docker's own networks apart from those of the machines.

Docker avoids the networks that its machine has a route to. It knows neither the other machines'
networks nor private addresses behind the default route.
"""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from stack.engine.engine import Engine
from stack.errors import OperatorError, Refused
from stack.machines import docker_command, routes
from stack.swarm import packets
from stack.swarm.fleet import Member
from stack.swarm.networks import find_networks

# Swarm gives each overlay network a subnet of one of these; the first free pool is used.
# Swarm's default, all of 10.0.0.0/8, would overlap a cloud's private addresses.
POOLS = tuple(IPv4Network(text) for text in (
    "10.201.0.0/16", "172.29.0.0/16", "10.77.0.0/16", "192.168.192.0/18"))
# Through this bridge the containers of a node reach the outside. Swarm makes it, unless it exists.
GATEWAY = "docker_gwbridge"
GATEWAYS = tuple(IPv4Network(text) for text in (
    "172.18.0.0/16", "172.30.0.0/16", "10.202.0.0/16", "192.168.176.0/20"))
# Docker's default bridge, which builds use; the first is Docker's own choice.
BRIDGE = "docker0"
BRIDGES = tuple(IPv4Network(text) for text in (
    "172.17.0.0/16", "172.31.0.0/16", "10.203.0.0/16", "192.168.160.0/20"))
# Docker's links, by their names: its two bridges, and those that somebody else made.
LINKS = re.compile(rf"{BRIDGE}|{GATEWAY}|br-[0-9a-f]{{12}}")
# As Swarm makes it (docs.docker.com/engine/swarm/networking, "Customize the docker_gwbridge").
OPTIONS = (f"bridge.name={GATEWAY}", "bridge.enable_icc=false",
           "bridge.enable_ip_masquerade=true")


def complaints(members: Sequence[Member]) -> list[OperatorError]:
    """Return a line for each network of Docker's that takes another machine's private address."""
    with ThreadPoolExecutor(len(members)) as pool:
        return [line for lines in pool.map(partial(_shadowed, members), members) for line in lines]


def _shadowed(members: Sequence[Member], member: Member) -> list[OperatorError]:
    others = {other.private: other for other in members if other is not member and other.private}
    return [_refused(f"{member.name}: its packets to {route.peer}, the private address of "
                     f"{others[route.peer].name}, end in Docker's own network {route.link}",
                     route.link, members)
            for route in routes.to_peers(member.machine, list(others))
            if LINKS.fullmatch(route.link)] if others else []


def _refused(cause: str, link: str, members: Sequence[Member]) -> Refused:
    """Say how the network behind a link of Docker's gets another subnet."""
    if link == GATEWAY:
        return Refused(cause, f"there: docker network rm {GATEWAY}, then ./fab bootstrap, which "
                       "chooses another; on a node of the Swarm, first ./fab node.drain it, and "
                       f"docker network disconnect --force {GATEWAY} gateway_ingress-sbox")
    if link == BRIDGE:
        bip = bridge_settings(members, [BRIDGES[0], *taken(members)])["bip"]
        return Refused(cause, f'there: add "bip": "{bip}" to /etc/docker/daemon.json and restart '
                       "Docker, then ./fab bootstrap")
    return Refused(cause, f"there: docker network rm {link.removeprefix('br-')}")


def private(members: Iterable[Member]) -> list[IPv4Network]:
    """Return the private address of each machine that has one, as a network."""
    return [IPv4Network(member.private) for member in members if member.private]


def taken(members: Sequence[Member]) -> list[IPv4Network]:
    """Return all networks that Docker's must not overlap: routes, and private addresses."""
    with ThreadPoolExecutor(len(members)) as pool:
        known = pool.map(lambda member: routes.networks(member.machine), members)
        return [*(network for found in known for network in found), *private(members)]


def free_pool(taken: Iterable[IPv4Network], pools: Sequence[IPv4Network] = POOLS,
              owner: str = "the Swarm's own", remedy: str = "") -> IPv4Network:
    """Return the first pool that nothing overlaps; raises Refused if there is none."""
    known = list(taken)
    for pool in pools:
        if not any(pool.overlaps(network) for network in known):
            return pool
    raise Refused(f"no network is left for {owner}: every one of "
                  f"{', '.join(map(str, pools))} is in use", remedy or "docker swarm init by hand")


def bridge_settings(members: Sequence[Member],
                    known: Sequence[IPv4Network] = ()) -> dict[str, str]:
    """Return what daemon.json has to say of docker0: nothing, where Docker's own choice is free."""
    pool = free_pool([*known, *private(members)], BRIDGES, BRIDGE,
                     "choose its bip in /etc/docker/daemon.json")
    return {"bip": f"{pool[1]}/{pool.prefixlen}"} if pool != BRIDGES[0] else {}


def ensure_gateway(member: Member, members: Sequence[Member]) -> str:
    """Make docker_gwbridge where nothing overlaps it, with packets that fit the machine's network.

    Says so, or returns "" if it exists.
    """
    if docker_command.run(member.machine, "network", "inspect", GATEWAY).ok:
        return ""
    subnet = free_pool([*routes.networks(member.machine), *private(members), *POOLS], GATEWAYS,
                       GATEWAY, "make it by hand, then ./fab bootstrap")
    mtu = packets.least_mtu(member, members)
    options = [*OPTIONS, f"driver.mtu={mtu}"] if mtu < packets.ETHERNET else OPTIONS
    docker_command.must(member.machine, "network", "create", f"--subnet={subnet}", *(
        f"--opt=com.docker.network.{option}" for option in options), GATEWAY)
    return f"{GATEWAY} takes {subnet}"


def overlaps(engine: Engine, members: Sequence[Member]) -> list[OperatorError]:
    """Return a line for each overlay network of an existing Swarm that takes a private address."""
    return [Refused(f"{network.name} takes {subnet}, and with it {member.private}, the private "
                    f"address of {member.name}: its containers can't reach that machine",
                    "a Swarm keeps its address pool; docs/scaling.md says what another one takes")
            for network in find_networks(engine) if network.is_overlay
            for subnet in network.subnets for member in members
            if member.private and IPv4Address(member.private) in subnet]
