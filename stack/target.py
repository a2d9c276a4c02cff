"""Where a release goes: the Swarm that was chosen, and the operator's choices for it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import docker

from stack import console, engine, fleet, store, swarm
from stack.engine import SOCKET, DockerCli
from stack.errors import Refused
from stack.fleet import AnyManager, Fleet, Member
from stack.machine import LocalMachine, Machine
from stack.privilege import may_use_docker, require_root
from stack.registry import DOCKER_CONFIG
from stack.settings import Settings, inventory_path
from stack.store import Store

# Seconds in which a new leader hears from every node that is there: each reports every five.
HEARD = 20.0


@dataclass(frozen=True)
class Target:
    """A Swarm: its engine, twice, through whichever manager answers, and its machines."""

    fleet: Fleet
    machine: Machine
    client: docker.DockerClient
    cli: DockerCli
    settings: Settings

    @cached_property
    def store(self) -> Store:
        """Where its images are kept; raises Refused if that isn't known."""
        return store.of(self.fleet, self.client, self.machine)

    @cached_property
    def chosen(self) -> Mapping[str, str]:
        """By service, the images that the inventory names instead of what is built here.

        Each by its digest; raises Refused for one that can't be found.
        """
        named = self.fleet.inventory.images if self.fleet.inventory else {}
        return {service: self.store.pinned(image) for service, image in named.items()}

    @classmethod
    def reach(cls, why: str) -> "Target":
        """Reach the chosen Swarm, also without some of its machines.

        On this machine, as root if the engine lets nobody else; raises Refused without
        a Swarm.
        """
        if inventory_path() is None and SOCKET.exists() and not may_use_docker(SOCKET):
            require_root(why)
        machines = fleet.reach(partly=True)
        for node, error in machines.missing.items():
            console.say(f"  missing        {error}")
        machine = LocalMachine() if machines.local else working_manager(machines)
        client = engine.connect(machine)
        swarm.require_manager(client, machine.name)
        named = machines.inventory is not None and store.uses_registry(machines.inventory)
        cli = DockerCli(machine, DOCKER_CONFIG if named else "")
        return cls(machines, machine, client, cli, Settings.load(machines.inventory))

    def edges(self) -> list[str]:
        """Return the addresses at which visitors find the site now.

        Those of the nodes that are ready and labelled as edges; raises Refused if there
        are none.
        """
        if self.fleet.local:
            return ["127.0.0.1"]
        hosts, nodes = self.hosts(), {str(node.id): node for node in self.client.nodes.list()}
        found = sorted(hosts[key] for key, node in nodes.items()
                       if key in hosts and serves_visitors(node.attrs))
        if not found:
            raise Refused("no node that is ready has the label edge=true", "./fab status")
        return found

    def settled_nodes(self) -> list[dict[str, Any]]:
        """Return the nodes as the API gives them.

        Waits a while for those that a new leader hasn't heard from yet, if their machines can
        be reached; so it does after a restart of the only engine.
        """
        here, deadline = self.members(), time.monotonic() + HEARD
        while True:
            nodes = list(self.client.api.nodes())
            if time.monotonic() > deadline or not any(
                    node["Status"]["State"] == "unknown" and node["ID"] in here
                    and here[node["ID"]].machine.alive for node in nodes):
                return nodes
            time.sleep(0.3)

    def members(self) -> dict[str, Member]:
        """Return the machine of each node's id, as far as they can be reached."""
        nodes = self.client.nodes.list()
        if len(nodes) == len(self.fleet.members) == 1:
            # Alone, a node may say that it is found at the loopback address.
            return {str(nodes[0].id): self.fleet.members[0]}
        by_address = {member.private: member for member in self.fleet.members}
        return {str(node.id): by_address[node.attrs["Status"]["Addr"]] for node in nodes
                if node.attrs["Status"].get("Addr") in by_address}

    def hosts(self) -> dict[str, str]:
        """Return for each node's id where its machine is found."""
        return {node: fleet.address(member.machine) for node, member in self.members().items()}

    def holder(self, label: str) -> Member | None:
        """Return the machine that has a placement label, if it can be reached."""
        return fleet.holder(self.fleet, label)


def working_manager(machines: Fleet) -> AnyManager:
    """Return the managers, those first whose engine manages a Swarm now."""
    found = AnyManager(fleet.builders(machines))
    for member in fleet.builders(machines):
        try:
            part = member.membership()
        except engine.FAILURES:
            part = None
        if part and part.manager and not part.error:
            break
        found.avoid(member)
    return found


def serves_visitors(node: dict[str, Any]) -> bool:
    """Tell whether a node, as the API gives it, runs Traefik for visitors now."""
    return node["Status"]["State"] == "ready" and node["Spec"]["Availability"] == "active" \
        and (node["Spec"].get("Labels") or {}).get("edge") == "true"
