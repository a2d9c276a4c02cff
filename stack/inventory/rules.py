"""Rules that span several nodes, and where services run by default."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stack.inventory.document import Place, shown
from stack.inventory.model import MANAGERS, Host, Inventory


def check_addresses(place: Place, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an address, public or private, that two nodes share."""
    owners: dict[str, tuple[int, Place]] = {}
    for index, node in enumerate(nodes):
        for name in [name for name in ("host", "private") if name in node]:
            here = place.item(index).key(name)
            owner, there = owners.setdefault(str(node[name]).lower(), (index, here))
            if owner != index:
                here.wrong(f"{shown(here.value)} is already used as {there.path}")


def check_managers(place: Place, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a number of managers that doesn't suit Raft, unless a role is missing."""
    count = sum(node.get("role") == "manager" for node in nodes)
    if count in MANAGERS or any("role" not in node for node in nodes):
        return
    why = "every change waits for a majority of them"
    if not count:
        why = "a Swarm needs at least one"
    elif count % 2 == 0:
        why = f"{count} managers tolerate no more failures than {count - 1}"
    place.wrong(f"should have 1, 3 or 5 managers, not {count}: {why}")


def check_labels(place: Place, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse labels that leave a service no node, or too many."""
    if not any(node.get("labels") for node in nodes):
        return
    postgres, edges, registries = (
        [index for index, node in enumerate(nodes) if node.get("labels", {}).get(label) == "true"]
        for label in ("postgres", "edge", "registry"))
    if len(postgres) != 1:
        place.wrong(f'should have one node with the label postgres: "true", not {len(postgres)}')
    if not edges:
        place.wrong('should have a node with the label edge: "true"')
    if len(registries) > 1:
        place.wrong('should have at most one node with the label registry: "true", '
                    f"not {len(registries)}")
    for index in registries:
        if nodes[index]["role"] != "manager":
            place.item(index).key("labels").key("registry").wrong(
                "belongs on a manager, where images are built")


def check_registry(place: Place, inventory: Inventory) -> None:
    """Refuse labels that leave the Swarm's own registry no node, if it needs one."""
    if inventory.needs_own_registry and not _may_hold_registry(inventory.nodes):
        place.wrong('should leave a manager without the label registry: "false": '
                    "it holds the images, unless registry names another place")


def placed(inventory: Inventory) -> Inventory:
    """Return the inventory with default labels where the operator gave none."""
    nodes = inventory.nodes
    if not any(node.labels for node in nodes):
        first = inventory.managers[0]
        nodes = _labelled(_labelled(nodes, inventory.managers, "edge"), [first], "postgres")
    if inventory.needs_own_registry \
            and not any(node.labels.get("registry") == "true" for node in nodes):
        nodes = _labelled(nodes, _may_hold_registry(nodes)[:1], "registry")
    return replace(inventory, nodes=nodes)


def _may_hold_registry(nodes: Sequence[Host]) -> list[Host]:
    return [node for node in nodes
            if node.role == "manager" and node.labels.get("registry") != "false"]


def _labelled(nodes: Sequence[Host], holders: Sequence[Host], label: str) -> tuple[Host, ...]:
    """Return the nodes, with the label added to the holders."""
    hosts = {node.host for node in holders}
    return tuple(replace(node, labels={**node.labels, label: "true"})
                 if node.host in hosts else node for node in nodes)
