"""Know the Swarm's nodes, the room on them, and how to tell a person of both."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stack.placement.constraint import Node
from stack.placement.packing import Rooms
from stack.placement.resources import Held, Resources, Room

SHOWN = 5  # nodes, in a line


@dataclass(frozen=True)
class Nodes:
    """All nodes, and the room on those that take tasks."""

    all: Sequence[Node]
    rooms: Rooms

    @classmethod
    def read(cls, nodes: Sequence[Node], others: Mapping[str, Held]) -> "Nodes":
        """Take them as the Engine API gives them, and away what `others` hold."""
        return cls(nodes, {node["ID"]: Room(_resources(node)).without(
            others.get(node["ID"], Held())) for node in nodes if not why_unusable(node)})

    @property
    def usable(self) -> list[Node]:
        return [node for node in self.all if node["ID"] in self.rooms]

    def name(self, wanted: Iterable[str], say: Callable[[Node], object]) -> str:
        """Name nodes, with something to say of each; of many, only the first."""
        ids = set(wanted)
        found = [f"{_hostname(node)} ({say(node)})" for node in self.all if node["ID"] in ids]
        more = [f"{len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return ", ".join(found[:SHOWN] + more) or "no node"

    def name_room(self, wanted: Iterable[str], rooms: Rooms | None = None) -> str:
        """Name nodes with what is there for the stack, or in these rooms."""
        return self.name(wanted, lambda node: (rooms or self.rooms)[node["ID"]].free)


def why_unusable(node: Node) -> str:
    """Say why a node takes no tasks, or return ""."""
    state, availability = node["Status"]["State"], node["Spec"]["Availability"]
    if state != "ready":
        return str(state)
    return {"active": "", "drain": "drained", "pause": "paused"}[availability]


def traits(node: Node) -> str:
    """Say what a constraint may ask for."""
    labels = sorted((node["Spec"].get("Labels") or {}).items())
    return ", ".join([node["Spec"]["Role"], *(f"{key}={value}" for key, value in labels)])


def _resources(node: Node) -> Resources:
    return Resources.read((node.get("Description") or {}).get("Resources"))


def _hostname(node: Node) -> str:
    return str((node.get("Description") or {}).get("Hostname") or node["ID"])
