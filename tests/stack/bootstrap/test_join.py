"""Machines form one Swarm only if they belong together."""

from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from stack.bootstrap.join import complaints, first_manager, strangers
from stack.engine.engine import Engine
from stack.engine.failures import ApiError
from stack.errors import OperatorError
from stack.inventory import Host, Ssh
from stack.inventory.model import Role
from stack.machines.host_keys import Pinned
from stack.machines.ssh import RemoteMachine
from stack.swarm import nodes
from stack.swarm.fleet import Member
from stack.swarm.membership import Membership
from stack.swarm.nodes import demote, give_labels, promote, wait_ready
from tests.support.engine_api import FakeEngine
from tests.support.failing import error_of

pytestmark = pytest.mark.unit


def member(name: str, private: str = "", role: Role = "manager") -> Member:
    node = Host(name, role, IPv4Address(private) if private else None)
    return Member(node, RemoteMachine(node, Ssh(), Pinned(Path("known_hosts"))))


ONE, TWO = member("one", "192.0.2.1"), member("two", "192.0.2.2")
WORKER = member("worker", "192.0.2.3", "worker")


def managing(address: str, cluster: str = "swarm1", error: str = "") -> Membership:
    return Membership("active", True, error, f"node-{address}", address, cluster)


def working(address: str) -> Membership:
    return Membership("active", False, "", f"node-{address}", address)


def lines(errors: list[OperatorError]) -> list[str]:
    return [str(error) for error in errors]


@pytest.mark.parametrize("parts", [
    {ONE: Membership(), WORKER: Membership()},
    {ONE: managing("192.0.2.1"), TWO: Membership(), WORKER: working("192.0.2.3")},
    {ONE: Membership(), TWO: managing("192.0.2.2"), WORKER: working("192.0.2.3")},
    {ONE: managing("127.0.0.1")},
    {ONE: managing("192.0.2.1"), WORKER: Membership("pending", False, "", "", "192.0.2.3")}])
def test_machines_that_belong_together_are_accepted(parts: dict[Member, Membership]) -> None:
    assert complaints(parts) == []


def test_a_swarm_in_trouble_is_refused() -> None:
    assert lines(complaints({ONE: managing("192.0.2.1", error="no leader"),
                             TWO: Membership("locked")})) == [
        "the Swarm on one reports an error (no leader): run docker info on it",
        "the Swarm on two reports an error (locked): run docker info on it"]


def test_a_member_at_another_address_than_the_inventorys_is_refused() -> None:
    alone = member("alone")
    assert lines(complaints({ONE: managing("198.51.100.1"), alone: working("192.0.2.9")})) == [
        "one is in a Swarm as 198.51.100.1, and the inventory says private: 192.0.2.1: "
        "correct the inventory",
        "alone is in a Swarm as 192.0.2.9, and the inventory says private: nothing: "
        "correct the inventory"]


def test_managers_of_different_swarms_are_refused() -> None:
    assert lines(complaints({ONE: managing("192.0.2.1"), TWO: managing("192.0.2.2", "swarm2"),
                             WORKER: Membership()})) == [
        "two belongs to another Swarm than one: "
        "run on the one that is wrong: docker swarm leave --force"]


def test_a_worker_with_unknown_managers_is_refused() -> None:
    assert lines(complaints({ONE: Membership(), WORKER: working("192.0.2.3")})) == [
        "worker is a worker of a Swarm whose managers aren't in the inventory: "
        "add them to it, or run on it: docker swarm leave"]


def test_the_first_machine_that_manages_is_found() -> None:
    parts = {ONE: Membership(), WORKER: working("192.0.2.3"), TWO: managing("192.0.2.2")}
    assert first_manager(parts) is TWO
    assert first_manager({ONE: Membership()}) is None


class Busy(FakeEngine):
    """An engine on which somebody else changes the node first, a given number of times."""

    meanwhile = 0

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        if method == "POST" and self.meanwhile:
            self.meanwhile -= 1
            return 500, {"message": "rpc error: code = Unknown desc = update out of sequence"}
        return super().answer(method, path, query, body)


@pytest.fixture
def fake() -> Busy:
    return Busy({"nodes": {"id1": {
        "ID": "id1", "Version": {"Index": 7}, "Status": {"State": "ready"},
        "Description": {"Hostname": "host1"},
        "Spec": {"Role": "worker", "Availability": "active",
                 "Labels": {"edge": "true", "disk": "ssd"}}}}})


def spec(fake: FakeEngine) -> Any:
    return fake.kinds["nodes"]["id1"]["Spec"]


def test_labels_are_set_and_placement_labels_removed(
        fake: Busy, engine: Engine) -> None:
    wanted = {"edge": "false", "postgres": "true", "zone": "b"}
    assert give_labels(engine, "id1", wanted) == ["postgres=true", "zone=b", "no edge"]
    assert spec(fake) == {"Role": "worker", "Availability": "active", "Labels": {
        "disk": "ssd", "postgres": "true", "zone": "b"}}


def test_labels_that_are_already_set_are_left_alone(
        fake: Busy, engine: Engine) -> None:
    fake.meanwhile = 1
    assert give_labels(engine, "id1", {"edge": "true", "registry": "false"}) == []
    assert fake.meanwhile == 1


def test_a_node_changed_by_somebody_else_is_changed_again(
        fake: Busy, engine: Engine) -> None:
    fake.meanwhile = 2
    assert give_labels(engine, "id1", {"edge": "true", "disk": "hdd"}) == ["disk=hdd"]
    assert spec(fake)["Labels"] == {"edge": "true", "disk": "hdd"}


def test_a_node_gets_its_role_once(fake: Busy, engine: Engine) -> None:
    fake.kinds["nodes"]["id1"]["ManagerStatus"] = {"Reachability": "reachable"}
    assert [promote(engine, "id1") for _ in range(2)] == [True, False]
    assert spec(fake)["Role"] == "manager"
    assert spec(fake)["Labels"] == {"edge": "true", "disk": "ssd"}
    del fake.kinds["nodes"]["id1"]["ManagerStatus"]
    assert [demote(engine, "id1") for _ in range(2)] == [True, False]
    assert spec(fake)["Role"] == "worker"


@pytest.mark.parametrize(("change", "role", "status", "fault"), [
    (promote, "worker", {"Reachability": "unreachable"}, "is not reachable as a manager"),
    (demote, "manager", {"Reachability": "reachable"}, "is still a manager")])
def test_a_role_that_raft_never_learns_of_is_named(
        fake: Busy, engine: Engine, monkeypatch: pytest.MonkeyPatch,
        change: Callable[[Engine, str], bool], role: str, status: dict[str, str],
        fault: str) -> None:
    monkeypatch.setattr(nodes, "SETTLED", 0.1)
    fake.kinds["nodes"]["id1"]["ManagerStatus"] = status
    spec(fake)["Role"] = role
    assert error_of(lambda: change(engine, "id1"), OperatorError) == (
        f"host1 {fault} after 0 s: see: docker node ls, then the same command again")


def test_a_change_that_the_swarm_refuses_is_an_error(
        fake: Busy, engine: Engine) -> None:
    fake.failing = True
    with pytest.raises(ApiError):
        promote(engine, "id1")


def test_a_swarm_on_the_loopback_interface_cant_grow() -> None:
    assert lines(complaints({ONE: managing("127.0.0.1"), WORKER: Membership()})) == [
        "one runs a Swarm that advertises 127.0.0.1 and cannot accept other nodes: "
        "start a new Swarm on other machines"]


def test_a_worker_that_the_swarm_doesnt_know_is_refused(engine: Engine) -> None:
    known = Membership("active", False, "", "id1", "192.0.2.3")
    assert lines(strangers(engine, {WORKER: working("192.0.2.3"), ONE: known,
                                    TWO: Membership()})) == [
        "worker belongs to another Swarm: run on it: docker swarm leave, then ./fab bootstrap"]


def test_a_node_that_isnt_ready_in_time_is_named(
        fake: Busy, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "SETTLED", 0.1)
    wait_ready(engine, ["id1"])
    fake.kinds["nodes"]["id1"]["Status"] = {"State": "down", "Message": "heartbeat failure"}
    assert error_of(lambda: wait_ready(engine, ["id1"]), OperatorError) == (
        "host1 isn't ready (heartbeat failure): see: docker node ls, then ./fab bootstrap")
