"""Read the Swarm's nodes, and change their role, labels and availability."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stack import waiting
from stack.engine.engine import Engine
from stack.errors import OperatorError, Refused
from stack.inventory import PLACEMENT
from stack.swarm import changes

LABELS = ("edge", "postgres")
SETTLED = 60.0  # seconds until a node has to be ready


@dataclass(frozen=True)
class Node:
    """A node of the Swarm.

    `role`, `state`, `availability` and `reachability` are Swarm's own words; the last is "" for
    a worker. `address` is where the other nodes find it, "" if Swarm doesn't know. The platform
    is `os` and `architecture`; `nano_cpus` are billionths of a CPU, `memory` is in bytes.
    """

    id: str
    hostname: str
    address: str
    role: str
    state: str
    message: str
    availability: str
    labels: Mapping[str, str] = field(hash=False)
    reachability: str = ""
    leader: bool = False
    os: str = ""
    architecture: str = ""
    engine_labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    nano_cpus: int = 0
    memory: int = 0

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Node":
        """Read a node as the Engine API gives it."""
        spec, status = found.get("Spec", {}), found.get("Status", {})
        manager, description = found.get("ManagerStatus") or {}, found.get("Description") or {}
        platform, resources = description.get("Platform") or {}, description.get("Resources") or {}
        return cls(found["ID"], description.get("Hostname", ""),
                   status.get("Addr", ""), spec.get("Role", ""), status.get("State", ""),
                   status.get("Message", ""), spec.get("Availability", ""),
                   spec.get("Labels") or {},
                   manager.get("Reachability", "unknown") if manager else "",
                   bool(manager.get("Leader")),
                   platform.get("OS", ""), platform.get("Architecture", ""),
                   (description.get("Engine") or {}).get("Labels") or {},
                   resources.get("NanoCPUs") or 0, resources.get("MemoryBytes") or 0)

    def has(self, label: str) -> bool:
        """Return whether a placement label is set."""
        return self.labels.get(label) == "true"

    @property
    def manages(self) -> bool:
        """Whether Raft knows the node as a manager, which may lag behind its role."""
        return self.reachability != ""

    @property
    def serves_visitors(self) -> bool:
        """Whether Traefik runs here for visitors now."""
        return self.state == "ready" and self.availability == "active" and self.has("edge")


def all_nodes(engine: Engine) -> list[Node]:
    """Return the Swarm's nodes."""
    return [Node.read(found) for found in engine.nodes.list()]


def inspect(engine: Engine, node_id: str) -> Node:
    """Return one node."""
    return Node.read(engine.nodes.inspect(node_id))


def missing_labels(engine: Engine) -> list[str]:
    """Return the placement labels of docker-stack.yml that no node has."""
    nodes = all_nodes(engine)
    return [label for label in LABELS if not any(node.has(label) for node in nodes)]


def require_labels(engine: Engine) -> None:
    """Refuse a Swarm where no node fits a service."""
    for label in missing_labels(engine):
        raise Refused(f"no node has the label {label}=true", "./fab bootstrap sets it")


def wait_ready(engine: Engine, ids: Iterable[str]) -> None:
    """Wait until nodes are ready for tasks; raises OperatorError naming one that isn't."""
    deadline = time.monotonic() + SETTLED
    for node_id in ids:
        node = waiting.until(lambda: inspect(engine, node_id), deadline - time.monotonic(),
                             done=lambda node: node.state == "ready")
        if node.state != "ready":
            raise OperatorError(f"{node.hostname} isn't ready "
                                f"({node.message or 'no reason given'})",
                                "see: docker node ls, then ./fab bootstrap")


def promote(engine: Engine, node_id: str) -> bool:
    """Promote a node and wait until it is reachable as manager; return whether it changed."""
    if not _update(engine, node_id, {"Role": "manager"}):
        return False
    _wait(engine, node_id, "is not reachable as a manager",
          lambda node: node.reachability == "reachable")
    return True


def demote(engine: Engine, node_id: str) -> bool:
    """Demote a node and wait until it has left Raft; return whether it changed."""
    if not _update(engine, node_id, {"Role": "worker"}):
        return False
    _wait(engine, node_id, "is still a manager", lambda node: not node.manages)
    return True


def _wait(engine: Engine, node_id: str, fault: str,
          arrived: Callable[[Node], bool]) -> None:
    node = waiting.until(lambda: inspect(engine, node_id), SETTLED, done=arrived)
    if not arrived(node):
        raise OperatorError(f"{node.hostname} {fault} after {SETTLED:.0f} s",
                            "see: docker node ls, then the same command again")


def give_labels(engine: Engine, node_id: str, wanted: Mapping[str, str]) -> list[str]:
    """Set a node's labels, remove unwanted placement labels; return the changes."""
    before = dict(inspect(engine, node_id).labels)
    after = {name: value for name, value in before.items() if name not in PLACEMENT} | {
        name: value for name, value in wanted.items()
        if name not in PLACEMENT or value == "true"}
    if after == before:
        return []
    _update(engine, node_id, {"Labels": after})
    return [f"{name}={after[name]}" for name in after if before.get(name) != after[name]] \
        + [f"no {name}" for name in before if name not in after]


def add_label(engine: Engine, node_id: str, name: str, label: str) -> None:
    """Set a placement label of a node, which errors call by its name."""
    changes.change(engine.nodes, node_id, name, lambda spec: {
        **spec, "Labels": {**spec.get("Labels", {}), label: "true"}})


def _update(engine: Engine, node_id: str, change: Mapping[str, Any]) -> bool:
    """Change fields of a node's definition; return whether any differed."""
    return changes.change(engine.nodes, node_id, f"the node {node_id[:12]}",
                          lambda spec: {**spec, **change})


def set_availability(engine: Engine, node_id: str, wanted: str) -> bool:
    """Set a node's availability; return whether it changed."""
    return _update(engine, node_id, {"Availability": wanted})
