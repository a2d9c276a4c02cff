"""Read from a stack file how many tasks a service has, and what each needs of its node."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stack.swarm.nodes import Node
from stack.swarm.placement.constraint import Constraint
from stack.swarm.placement.resources import UNLIMITED, Resources

Definition = Mapping[str, Any]


@dataclass(frozen=True)
class Demand:
    """The tasks of a service.

    `nodes` are the ids of those that fit; `most` is how many tasks one of them may have.
    A service that is `everywhere` has one task on each. If it `starts_first`, an update
    temporarily adds a task.
    """

    name: str
    tasks: int
    each: Resources
    nodes: tuple[str, ...]
    most: int = UNLIMITED
    ports: frozenset[str] = frozenset()
    everywhere: bool = False
    starts_first: bool = False

    @classmethod
    def read(cls, name: str, service: Definition, nodes: Iterable[Node]) -> "Demand":
        """Read a service of a stack file, for the nodes that take tasks."""
        deploy = service.get("deploy") or {}
        fitting = tuple(node.id for node in nodes if fits(service, node))
        everywhere = deploy.get("mode") == "global"
        # Swarm's rollback has an order of its own.
        orders = {(deploy.get(key) or {}).get("order")
                  for key in ("update_config", "rollback_config")}
        most = (deploy.get("placement") or {}).get("max_replicas_per_node")
        return cls(name, len(fitting) if everywhere else int(deploy.get("replicas", 1)),
                   Resources.reserved(service), fitting,
                   1 if everywhere else int(most or UNLIMITED), _host_ports(service),
                   everywhere, "start-first" in orders)

    @property
    def during_update(self) -> int:
        """How many tasks there are while an update replaces one."""
        return self.tasks + self.starts_first

    def __str__(self) -> str:
        tasks = f"{self.tasks} task" + "s" * (self.tasks != 1)
        return tasks + ", and one more during an update" * (self.during_update > self.tasks)


def fits(service: Definition, node: Node) -> bool:
    """Return whether a node meets all of a service's constraints."""
    found = map(Constraint.read, constraints(service))
    return all(constraint is not None and constraint.fits(node) for constraint in found)


def constraints(service: Definition) -> list[str]:
    return list(((service.get("deploy") or {}).get("placement") or {}).get("constraints") or [])


def _host_ports(service: Definition) -> frozenset[str]:
    """Return the ports that only one task on a node can have.

    Ports of the routing mesh and ports that Docker chooses don't count.
    """
    return frozenset(f"{port['published']}/{port.get('protocol', 'tcp')}"
                     for port in service.get("ports") or [] if isinstance(port, dict)
                     and port.get("mode") == "host" and int(port.get("published") or 0))
