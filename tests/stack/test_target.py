"""Visitors find the site where a node is ready and an edge, at the inventory's addresses."""

import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from threading import Timer

import docker
import pytest

import stack.target
from stack.engine import DockerCli
from stack.fleet import Fleet, Member
from stack.host_keys import Pinned
from stack.inventory import Inventory, Node, Ssh
from stack.machine import LocalMachine
from stack.remote import RemoteMachine
from stack.settings import Settings
from stack.target import Target
from tests.stack.conftest import AddCommand
from tests.stack.engine_api import Engine, reached
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit


@pytest.fixture
def engine() -> Engine:
    return Engine({"nodes": {}})


@pytest.fixture
def client(engine: Engine, add_command: AddCommand) -> Iterator[docker.DockerClient]:
    add_command("docker")
    with reached(engine) as client:
        yield client


def joined(engine: Engine, number: int, state: str = "ready", address: str = "",
           availability: str = "active", **labels: str) -> None:
    """Let the Swarm have a node."""
    engine.kinds["nodes"][f"id{number}"] = {
        "ID": f"id{number}",
        "Spec": {"Availability": availability, **({"Labels": labels} if labels else {})},
        "Status": {"State": state, "Addr": address or f"192.0.2.{number}"}}


def member(number: int, **labels: str) -> Member:
    node = Node(f"203.0.113.{number}", "manager", IPv4Address(f"192.0.2.{number}"), labels)
    return Member(node, RemoteMachine(node, Ssh(), Pinned(Path("known_hosts"))))


def target(client: docker.DockerClient, *members: Member) -> Target:
    machine = LocalMachine()
    nodes = tuple(each.node for each in members)
    found = Fleet(members, Inventory("production", nodes)) if members \
        else Fleet([Member(Node("this machine", "manager"), machine)])
    return Target(found, machine, client, DockerCli(machine), Settings.load(None))


def test_this_machine_alone_is_its_own_edge(client: docker.DockerClient) -> None:
    assert target(client).edges() == ["127.0.0.1"]


def test_the_edges_are_the_nodes_that_are_ready_and_labelled(
        engine: Engine, client: docker.DockerClient) -> None:
    joined(engine, 1, edge="true")
    joined(engine, 2, edge="false")
    joined(engine, 3, state="down", edge="true")
    joined(engine, 4)
    joined(engine, 5, edge="true")
    joined(engine, 6, availability="drain", edge="true")
    found = target(client, *map(member, (6, 5, 4, 3, 2, 1)))
    assert found.edges() == ["203.0.113.1", "203.0.113.5"]


def test_an_edge_that_isnt_in_the_inventory_has_no_address(
        engine: Engine, client: docker.DockerClient) -> None:
    joined(engine, 1, edge="true")
    joined(engine, 9, edge="true")
    assert target(client, member(1), member(2)).edges() == ["203.0.113.1"]


def test_a_swarm_without_an_edge_that_is_ready_is_refused(
        engine: Engine, client: docker.DockerClient) -> None:
    joined(engine, 1, state="down", edge="true")
    joined(engine, 2)
    assert error_of(target(client, member(1), member(2)).edges) \
        == "no node that is ready has the label edge=true: ./fab status"


def test_nodes_are_found_by_their_private_addresses(
        engine: Engine, client: docker.DockerClient) -> None:
    joined(engine, 1)
    joined(engine, 2, address="198.51.100.2")
    assert target(client, member(2), member(1)).hosts() == {"id1": "203.0.113.1"}


def test_the_only_node_of_the_only_machine_needs_no_private_address(
        engine: Engine, client: docker.DockerClient) -> None:
    joined(engine, 1, address="127.0.0.1")
    assert target(client, member(1)).hosts() == {"id1": "203.0.113.1"}


def test_the_holder_of_a_label_is_the_inventorys(client: docker.DockerClient) -> None:
    holds = member(2, postgres="true")
    found = target(client, member(1, postgres="false"), holds)
    assert found.holder("postgres") is holds
    assert found.holder("registry") is None


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every machine of an inventory can be reached."""
    monkeypatch.setattr(RemoteMachine, "alive", True)


def states(found: Target) -> list[str]:
    return [node["Status"]["State"] for node in found.settled_nodes()]


@pytest.mark.usefixtures("connected")
def test_a_new_leader_has_time_to_hear_of_a_node_that_is_there(
        engine: Engine, client: docker.DockerClient) -> None:
    joined(engine, 1)
    joined(engine, 2, state="unknown")
    Timer(0.4, joined, (engine, 2)).start()
    assert states(target(client, member(1), member(2))) == ["ready", "ready"]


def test_a_node_whose_machine_cant_be_reached_isnt_waited_for(
        engine: Engine, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    joined(engine, 1)
    joined(engine, 2, state="unknown")
    monkeypatch.setattr(time, "sleep", pytest.fail)
    assert states(target(client, member(1), member(2))) == ["ready", "unknown"]


@pytest.mark.usefixtures("connected")
def test_a_node_that_stays_silent_isnt_waited_for_long(
        engine: Engine, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack.target, "HEARD", 0.5)
    joined(engine, 1)
    joined(engine, 2, state="unknown")
    assert states(target(client, member(1), member(2))) == ["ready", "unknown"]
