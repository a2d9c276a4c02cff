"""Visitors reach the site on every ready edge node, at the inventory's addresses."""

import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from threading import Timer

import pytest

from stack.engine.cli import DockerCli
from stack.engine.engine import Engine
from stack.inventory import Host, Inventory, Ssh
from stack.inventory.settings import Settings
from stack.machines.host_keys import Pinned
from stack.machines.local import LocalMachine
from stack.machines.ssh import RemoteMachine
from stack.release.target import Target
from stack.swarm.fleet import Fleet, Member
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine, reached
from tests.support.failing import error_of

pytestmark = pytest.mark.unit


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine({"nodes": {}})


@pytest.fixture
def engine(fake: FakeEngine, add_command: AddCommand) -> Iterator[Engine]:
    add_command("docker")
    with reached(fake) as engine:
        yield engine


def joined(fake: FakeEngine, number: int, state: str = "ready", address: str = "",
           availability: str = "active", **labels: str) -> None:
    """Let the Swarm have a node."""
    fake.kinds["nodes"][f"id{number}"] = {
        "ID": f"id{number}",
        "Spec": {"Availability": availability, **({"Labels": labels} if labels else {})},
        "Status": {"State": state, "Addr": address or f"192.0.2.{number}"}}


def member(number: int, **labels: str) -> Member:
    node = Host(f"203.0.113.{number}", "manager", IPv4Address(f"192.0.2.{number}"), labels)
    return Member(node, RemoteMachine(node, Ssh(), Pinned(Path("known_hosts"))))


def target(engine: Engine, *members: Member) -> Target:
    machine = LocalMachine()
    nodes = tuple(each.host for each in members)
    found = Fleet(members, Inventory("production", nodes)) if members \
        else Fleet([Member(Host("this machine", "manager"), machine)])
    return Target(found, machine, engine, DockerCli(machine), Settings.load(None))


def test_this_machine_alone_is_its_own_edge(engine: Engine) -> None:
    assert target(engine).edges() == ["127.0.0.1"]


def test_the_edges_are_the_nodes_that_are_ready_and_labelled(
        fake: FakeEngine, engine: Engine) -> None:
    joined(fake, 1, edge="true")
    joined(fake, 2, edge="false")
    joined(fake, 3, state="down", edge="true")
    joined(fake, 4)
    joined(fake, 5, edge="true")
    joined(fake, 6, availability="drain", edge="true")
    found = target(engine, *map(member, (6, 5, 4, 3, 2, 1)))
    assert found.edges() == ["203.0.113.1", "203.0.113.5"]


def test_an_edge_that_isnt_in_the_inventory_has_no_address(
        fake: FakeEngine, engine: Engine) -> None:
    joined(fake, 1, edge="true")
    joined(fake, 9, edge="true")
    assert target(engine, member(1), member(2)).edges() == ["203.0.113.1"]


def test_a_swarm_without_an_edge_that_is_ready_is_refused(
        fake: FakeEngine, engine: Engine) -> None:
    joined(fake, 1, state="down", edge="true")
    joined(fake, 2)
    assert error_of(target(engine, member(1), member(2)).edges) \
        == "no ready node has the label edge=true: ./fab status"


def test_nodes_are_found_by_their_private_addresses(
        fake: FakeEngine, engine: Engine) -> None:
    joined(fake, 1)
    joined(fake, 2, address="198.51.100.2")
    assert target(engine, member(2), member(1)).hosts() == {"id1": "203.0.113.1"}


def test_the_only_node_of_the_only_machine_needs_no_private_address(
        fake: FakeEngine, engine: Engine) -> None:
    joined(fake, 1, address="127.0.0.1")
    assert target(engine, member(1)).hosts() == {"id1": "203.0.113.1"}


def test_the_holder_of_a_label_is_the_inventorys(engine: Engine) -> None:
    holds = member(2, postgres="true")
    found = target(engine, member(1, postgres="false"), holds)
    assert found.holder("postgres") is holds
    assert found.holder("registry") is None


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet whose machines can all be reached."""
    monkeypatch.setattr(RemoteMachine, "alive", True)


def states(found: Target) -> list[str]:
    return [node.state for node in found.settled_nodes()]


@pytest.mark.usefixtures("connected")
def test_a_new_leader_has_time_to_hear_from_a_node(
        fake: FakeEngine, engine: Engine) -> None:
    joined(fake, 1)
    joined(fake, 2, state="unknown")
    Timer(0.4, joined, (fake, 2)).start()
    assert states(target(engine, member(1), member(2))) == ["ready", "ready"]


def test_a_node_whose_machine_cant_be_reached_isnt_waited_for(
        fake: FakeEngine, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    joined(fake, 1)
    joined(fake, 2, state="unknown")
    monkeypatch.setattr(time, "sleep", pytest.fail)
    assert states(target(engine, member(1), member(2))) == ["ready", "unknown"]


@pytest.mark.usefixtures("connected")
def test_a_silent_node_isnt_waited_for_long(
        fake: FakeEngine, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.swarm.swarm.HEARD", 0.5)
    joined(fake, 1)
    joined(fake, 2, state="unknown")
    assert states(target(engine, member(1), member(2))) == ["ready", "unknown"]
