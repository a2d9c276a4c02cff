"""Make one Swarm of a fleet's machines: begin it, join, give roles and labels."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any

import docker
from docker.errors import APIError

from stack import swarm
from stack.errors import OperatorError, Refused
from stack.fleet import Member
from stack.inventory import PLACEMENT
from stack.swarm import LOOPBACK, Membership

PORT = 2377
# Swarm gives each overlay network a part of this; the first that is free is taken.
# Its own default, all of 10.0.0.0/8, would take a cloud's private addresses with it.
POOLS = tuple(IPv4Network(text) for text in (
    "10.201.0.0/16", "172.29.0.0/16", "10.77.0.0/16", "192.168.192.0/18"))
SETTLED = 60.0  # seconds until a node has to be ready
Parts = Mapping[Member, Membership]
# A join under way, a restart, or trouble with either.
UNDECIDED = {"pending", "error"}


def complaints(parts: Parts) -> list[OperatorError]:
    """Return why these machines can't become, or stay, one Swarm."""
    errors: list[OperatorError] = []
    for member, part in parts.items():
        if part.state == "locked" or part.state == "active" and part.manager and part.error:
            errors.append(Refused(f"the Swarm of {member.name} is in trouble "
                                  f"({part.error or part.state})", "see on it: docker info"))
        elif len(parts) > 1 and part.address == LOOPBACK:
            # Raft keeps the address that a manager began with, whatever it is told later.
            errors.append(Refused(f"{member.name} is a Swarm of one that began without an address "
                                  "for others, and Docker can't give it one",
                                  "begin anew on other machines, or leave it alone"))
        elif part.member and part.address not in {member.private, LOOPBACK} and part.address:
            errors.append(Refused(f"{member.name} is in a Swarm as {part.address}, and the "
                                  f"inventory says private: {member.private or 'nothing'}",
                                  "correct the inventory"))
    return errors or _different_swarms(parts)


def _different_swarms(parts: Parts) -> list[OperatorError]:
    """Refuse machines of several Swarms; the first manager's is the one that counts."""
    managers = {member: part.cluster for member, part in parts.items() if part.cluster}
    joined = [member for member, part in parts.items() if part.state == "active"]
    if not managers:
        lost: list[OperatorError] = [
            Refused(f"{member.name} is still finding the managers of its Swarm",
                    "wait, then ./fab bootstrap; see on it: docker info")
            for member, part in parts.items() if part.state in UNDECIDED]
        return lost + [Refused(f"{member.name} is a worker of a Swarm whose managers aren't in "
                               "the inventory", "add them to it, or run on it: docker swarm leave")
                       for member in joined]
    first, cluster = next(iter(managers.items()))
    return [Refused(f"{member.name} belongs to another Swarm than {first.name}",
                    "run on the one that is wrong: docker swarm leave --force")
            for member, other in managers.items() if other != cluster]


def strangers(client: docker.DockerClient, parts: Parts) -> list[OperatorError]:
    """Refuse nodes that the Swarm doesn't know: they belong to another.

    Without an id, a machine was cut off before any Swarm let it in.
    """
    known = {node.id for node in client.nodes.list()}
    return [Refused(f"{member.name} belongs to another Swarm",
                    "run on it: docker swarm leave, then ./fab bootstrap")
            for member, part in parts.items()
            if part.member and part.node_id and part.node_id not in known]


def first_manager(parts: Parts) -> Member | None:
    """Return the first machine that manages a Swarm already."""
    return next((member for member, part in parts.items() if part.manager), None)


def begin(member: Member) -> None:
    """Make a Swarm of one machine, which listens for others if they could ever come."""
    address = member.private or LOOPBACK
    member.client.swarm.init(
        advertise_addr=address, data_path_addr=address, listen_addr=f"{address}:{PORT}",
        default_addr_pool=[str(free_pool(routes(member)))], subnet_size=24)


def routes(member: Member) -> list[IPv4Network]:
    """Return the networks that a machine knows a way to, the whole world aside.

    A VPN that takes everything names the world in two halves, 0.0.0.0/1 and 128.0.0.0/1.
    """
    said = member.machine.must(["ip", "-4", "route", "show"])
    networks = [IPv4Network(line.split()[0]) for line in said.splitlines() if line[:1].isdigit()]
    return [network for network in networks if network.prefixlen > 1]


def free_pool(taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return addresses for overlay networks that are nobody else's."""
    known = list(taken)
    for pool in POOLS:
        if not any(pool.overlaps(network) for network in known):
            return pool
    raise Refused("no network is left for the Swarm's own: every one of "
                  f"{', '.join(map(str, POOLS))} is in use", "docker swarm init by hand")


def join(client: docker.DockerClient, member: Member, managers: Sequence[str]) -> None:
    """Let a machine join, in its role; a join that was cut off is begun anew."""
    own = member.client
    # A node that Swarm knows isn't let join, and those of other Swarms were refused: what
    # is left is a join of our own that was cut off.
    if swarm.membership(own).member:
        own.swarm.leave(force=True)
    client.swarm.reload()
    token = client.swarm.attrs["JoinTokens"][member.node.role.capitalize()]
    own.swarm.join(remote_addrs=[f"{address}:{PORT}" for address in managers], join_token=token,
                   advertise_addr=member.private, data_path_addr=member.private,
                   listen_addr=f"{member.private}:{PORT}")


def wait_ready(client: docker.DockerClient, ids: Iterable[str]) -> None:
    """Wait until nodes are ready for tasks; raises OperatorError naming one that isn't."""
    deadline = time.monotonic() + SETTLED
    for node_id in ids:
        while (node := client.nodes.get(node_id)).attrs["Status"]["State"] != "ready":
            if time.monotonic() > deadline:
                raise OperatorError(f"{node.attrs['Description']['Hostname']} isn't ready "
                                    f"({node.attrs['Status'].get('Message', 'no reason given')})",
                                    "see: docker node ls, then ./fab bootstrap")
            time.sleep(0.3)


def promote(client: docker.DockerClient, node_id: str) -> bool:
    """Make a manager of a node and wait until it takes part; tell whether that was needed."""
    if client.nodes.get(node_id).attrs["Spec"]["Role"] == "manager":
        return False
    _update(client, node_id, {"Role": "manager"})
    _wait(client, node_id, "doesn't take part as a manager", lambda node: (
        node.get("ManagerStatus") or {}).get("Reachability") == "reachable")
    return True


def demote(client: docker.DockerClient, node_id: str) -> bool:
    """Make a worker of a node and wait until Raft knows it; tell whether that was needed."""
    if client.nodes.get(node_id).attrs["Spec"]["Role"] == "worker":
        return False
    _update(client, node_id, {"Role": "worker"})
    _wait(client, node_id, "is still a manager", lambda node: "ManagerStatus" not in node)
    return True


def _wait(client: docker.DockerClient, node_id: str, fault: str,
          arrived: Callable[[dict[str, Any]], bool]) -> None:
    deadline = time.monotonic() + SETTLED
    while not arrived(node := client.api.inspect_node(node_id)):
        if time.monotonic() > deadline:
            raise OperatorError(f"{node['Description']['Hostname']} {fault} after "
                                f"{SETTLED:.0f} s", "see: docker node ls, then the same again")
        time.sleep(0.3)


def give_labels(client: docker.DockerClient, node_id: str, wanted: Mapping[str, str]) -> list[str]:
    """Set a node's labels and take away placements that it shouldn't have; return the changes."""
    spec = client.nodes.get(node_id).attrs["Spec"]
    before = spec.get("Labels") or {}
    after = {name: value for name, value in before.items() if name not in PLACEMENT} | {
        name: value for name, value in wanted.items()
        if name not in PLACEMENT or value == "true"}
    if after == before:
        return []
    _update(client, node_id, {"Labels": after})
    return [f"{name}={after[name]}" for name in after if before.get(name) != after[name]] \
        + [f"no {name}" for name in before if name not in after]


def _update(client: docker.DockerClient, node_id: str, change: dict[str, Any]) -> None:
    """Change a node's definition, again if Swarm changed it meanwhile."""
    while True:
        node = client.nodes.get(node_id)
        try:
            node.update({**node.attrs["Spec"], **change})
            return
        except APIError as error:
            if "out of sequence" not in str(error):
                raise
