"""The Swarm's nodes, their free resources, and how to describe both."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stack.swarm.nodes import Node
from stack.swarm.placement.packing import Rooms
from stack.swarm.placement.resources import Held, Resources, Room

SHOWN = 5  # nodes, in a line


@dataclass(frozen=True)
class Nodes:
    """All nodes, and the room on those that take tasks."""

    all: Sequence[Node]
    rooms: Rooms

    @classmethod
    def read(cls, nodes: Sequence[Node], others: Mapping[str, Held]) -> "Nodes":
        """Find the room on each node; subtract what `others` hold."""
        return cls(nodes, {node.id: Room(Resources(node.nano_cpus, node.memory)).without(
            others.get(node.id, Held())) for node in nodes if not why_unusable(node)})

    @property
    def usable(self) -> list[Node]:
        return [node for node in self.all if node.id in self.rooms]

    def name(self, wanted: Iterable[str], say: Callable[[Node], object]) -> str:
        """Name nodes, each with a remark; only the first few of many."""
        ids = set(wanted)
        found = [f"{node.hostname or node.id} ({say(node)})" for node in self.all if node.id in ids]
        more = [f"{len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return ", ".join(found[:SHOWN] + more) or "no node"

    def name_room(self, wanted: Iterable[str], rooms: Rooms | None = None) -> str:
        """Name nodes with what is free for the stack, or in these rooms."""
        return self.name(wanted, lambda node: (rooms or self.rooms)[node.id].free)


def why_unusable(node: Node) -> str:
    """Say why a node takes no tasks, or return ""."""
    if node.state != "ready":
        return node.state
    return {"active": "", "drain": "drained", "pause": "paused"}[node.availability]


def traits(node: Node) -> str:
    """Return what a constraint can match."""
    return ", ".join([node.role, *(f"{key}={value}" for key, value in sorted(node.labels.items()))])
