"""The chosen Swarm: its engine, its machines and the operator's settings."""

from dataclasses import dataclass
from typing import Self

from stack import progress, waiting
from stack.engine.cli import DockerCli
from stack.engine.connection import connect
from stack.engine.engine import Engine
from stack.errors import OperatorError, Refused
from stack.inventory.settings import Settings, inventory_path
from stack.machines.docker_command import SOCKET
from stack.machines.local import LocalMachine
from stack.machines.machine import Machine
from stack.machines.sudo import may_use_docker, require_root
from stack.swarm import fleet, membership, nodes
from stack.swarm.fleet import AnyManager, Fleet, Member
from stack.swarm.nodes import Node

# Seconds within which a new leader hears from every live node: each reports every five.
HEARD = 20.0


@dataclass(frozen=True)
class Swarm:
    """A Swarm, reached through any manager that answers.

    `engine` and `cli` are two ways to the same engine.
    """

    fleet: Fleet
    machine: Machine
    engine: Engine
    cli: DockerCli
    settings: Settings

    @classmethod
    def reach(cls, why: str) -> Self:
        """Reach the chosen Swarm, even if some machines are missing.

        On this machine, requires root unless the user may use Docker; raises Refused
        without a Swarm.
        """
        if inventory_path() is None and SOCKET.exists() and not may_use_docker(SOCKET):
            require_root(why)
        machines = fleet.reach(partly=True)
        for error in machines.missing.values():
            progress.note(str(error), "missing")
        machine = LocalMachine() if machines.local else working_manager(machines)
        engine = connect(machine)
        membership.require_manager(engine, machine.name)
        named = machines.inventory is not None and machines.inventory.uses_registry
        cli = DockerCli(machine, uses_registry=named)
        return cls(machines, machine, engine, cli, Settings.load(machines.inventory))

    def edges(self) -> list[str]:
        """Return the addresses that serve the site now.

        These are the ready nodes labelled as edges; raises Refused if there are none.
        """
        if self.fleet.local:
            return ["127.0.0.1"]
        hosts = self.hosts()
        found = sorted(hosts[node.id] for node in nodes.all_nodes(self.engine)
                       if node.id in hosts and node.serves_visitors)
        if not found:
            raise Refused("no ready node has the label edge=true", "./fab status")
        return found

    def settled_nodes(self) -> list[Node]:
        """Return the Swarm's nodes.

        Waits briefly for reachable nodes that a new leader hasn't heard from yet, also after
        the only engine was restarted.
        """
        here = self.members()

        def heard(found: list[Node]) -> bool:
            return not any(
                node.state == "unknown" and node.id in here and here[node.id].machine.alive
                for node in found)
        return waiting.until(lambda: nodes.all_nodes(self.engine), HEARD, done=heard)

    def members(self) -> dict[str, Member]:
        """Return the reachable machines by node id."""
        found = nodes.all_nodes(self.engine)
        if len(found) == len(self.fleet.members) == 1:
            # A single node may advertise the loopback address.
            return {found[0].id: self.fleet.members[0]}
        by_address = {member.private: member for member in self.fleet.members}
        return {node.id: by_address[node.address] for node in found if node.address in by_address}

    def hosts(self) -> dict[str, str]:
        """Return the machines' addresses by node id."""
        return {node: fleet.address(member.machine) for node, member in self.members().items()}

    def holder(self, label: str) -> Member | None:
        """Return the machine that has a placement label, if it can be reached."""
        return fleet.holder(self.fleet, label)


def working_manager(machines: Fleet) -> AnyManager:
    """Return the managers, starting with one that manages a Swarm now."""
    found = AnyManager(fleet.builders(machines))
    for member in fleet.builders(machines):
        try:
            part = member.membership()
        except OperatorError:
            part = None
        if part and part.manager and not part.error:
            break
        found.avoid(member)
    return found
