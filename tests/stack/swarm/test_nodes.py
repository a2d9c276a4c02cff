"""A node is read once from the Engine API; what is missing there is empty."""

from typing import Any

import pytest

from stack.swarm.nodes import Node

pytestmark = pytest.mark.unit

EDGE: dict[str, Any] = {
    "ID": "n1", "Description": {"Hostname": "anna"},
    "Spec": {"Role": "manager", "Availability": "active",
             "Labels": {"edge": "true", "disk": "ssd"}},
    "Status": {"State": "ready", "Addr": "192.0.2.11"},
    "ManagerStatus": {"Leader": True, "Reachability": "reachable", "Addr": "192.0.2.11:2377"}}


def test_all_of_a_managers_fields_are_read() -> None:
    assert Node.read(EDGE) == Node(
        id="n1", hostname="anna", address="192.0.2.11", role="manager", state="ready", message="",
        availability="active", labels={"edge": "true", "disk": "ssd"}, reachability="reachable",
        leader=True)


def test_a_worker_manages_nothing() -> None:
    worker = Node.read({key: value for key, value in EDGE.items() if key != "ManagerStatus"})

    assert (worker.manages, worker.leader, worker.reachability) == (False, False, "")
    assert Node.read(EDGE).manages


def test_labels_may_be_null() -> None:
    node = Node.read({**EDGE, "Spec": {**EDGE["Spec"], "Labels": None}})

    assert node.labels == {} and not node.has("edge")


def test_a_nodes_platform_and_resources_are_read() -> None:
    node = Node.read({**EDGE, "Description": {
        "Hostname": "anna", "Platform": {"Architecture": "x86_64", "OS": "linux"},
        "Resources": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 1024},
        "Engine": {"Labels": {"disk": "ssd"}}}})

    assert (node.os, node.architecture) == ("linux", "x86_64")
    assert (node.nano_cpus, node.memory, node.engine_labels) == (2_000_000_000, 1024,
                                                                 {"disk": "ssd"})


@pytest.mark.parametrize(("part", "field", "value"), [
    ("Status", "State", "down"), ("Spec", "Availability", "drain"), ("Spec", "Labels", {}),
    ("Spec", "Labels", {"edge": "false"})])
def test_visitors_are_served_by_ready_active_edges_only(
        part: str, field: str, value: object) -> None:
    assert Node.read(EDGE).serves_visitors
    assert not Node.read({**EDGE, part: {**EDGE[part], field: value}}).serves_visitors
