"""Machines become one Swarm only if they belong together, on a network that is nobody's."""

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import docker
import pytest

from stack import joining
from stack.errors import OperatorError
from stack.fleet import Member
from stack.host_keys import Pinned
from stack.inventory import Node, Ssh
from stack.inventory.model import Role
from stack.joining import (
    POOLS, complaints, demote, first_manager, free_pool, give_labels, promote, routes,
    strangers, wait_ready)
from stack.machine import LocalMachine
from stack.remote import RemoteMachine
from stack.swarm import Membership
from tests.stack.conftest import AddCommand
from tests.stack.engine_api import Engine, reached
from tests.stack.executables import answering
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit

ROUTES = """\
default via 192.168.1.1 dev eth0 proto dhcp src 192.168.1.20 metric 100
0.0.0.0/1 via 10.8.0.1 dev tun0
128.0.0.0/1 via 10.8.0.1 dev tun0
10.8.0.0/24 dev tun0 proto kernel scope link src 10.8.0.2
169.254.169.254 via 192.168.1.1 dev eth0 proto dhcp src 192.168.1.20 metric 100
172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 linkdown
unreachable 10.9.0.0/16 proto static
192.168.1.0/24 dev eth0 proto kernel scope link src 192.168.1.20 metric 100"""


def member(name: str, private: str = "", role: Role = "manager") -> Member:
    node = Node(name, role, IPv4Address(private) if private else None)
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
def test_machines_that_belong_together_are_taken(parts: dict[Member, Membership]) -> None:
    assert complaints(parts) == []


def test_a_swarm_in_trouble_is_refused() -> None:
    assert lines(complaints({ONE: managing("192.0.2.1", error="no leader"),
                             TWO: Membership("locked")})) == [
        "the Swarm of one is in trouble (no leader): see on it: docker info",
        "the Swarm of two is in trouble (locked): see on it: docker info"]


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


def test_a_worker_whose_managers_nobody_knows_is_refused() -> None:
    assert lines(complaints({ONE: Membership(), WORKER: working("192.0.2.3")})) == [
        "worker is a worker of a Swarm whose managers aren't in the inventory: "
        "add them to it, or run on it: docker swarm leave"]


def test_the_first_machine_that_manages_is_found() -> None:
    parts = {ONE: Membership(), WORKER: working("192.0.2.3"), TWO: managing("192.0.2.2")}
    assert first_manager(parts) is TWO
    assert first_manager({ONE: Membership()}) is None


def test_routes_are_read_and_the_whole_world_is_none(add_command: AddCommand) -> None:
    add_command("ip", '[ "$*" = "-4 route show" ] || exit 1', *answering(ROUTES))
    assert routes(Member(ONE.node, LocalMachine())) == [IPv4Network(text) for text in (
        "10.8.0.0/24", "169.254.169.254/32", "172.17.0.0/16", "192.168.1.0/24")]


@pytest.mark.parametrize(("taken", "pool"), [
    ([], "10.201.0.0/16"),
    (["10.200.0.0/16", "192.168.0.0/24"], "10.201.0.0/16"),
    (["10.201.7.0/24"], "172.29.0.0/16"),
    (["10.0.0.0/8"], "172.29.0.0/16"),
    (["10.201.0.0/16", "172.16.0.0/12"], "10.77.0.0/16"),
    (["10.0.0.0/8", "172.16.0.0/12"], "192.168.192.0/18")])
def test_the_first_network_that_is_nobodys_is_taken(taken: list[str], pool: str) -> None:
    assert free_pool(map(IPv4Network, taken)) == IPv4Network(pool)


def test_where_every_network_is_somebodys_it_is_told() -> None:
    assert error_of(lambda: free_pool(POOLS)) == (
        "no network is left for the Swarm's own: every one of 10.201.0.0/16, 172.29.0.0/16, "
        "10.77.0.0/16, 192.168.192.0/18 is in use: docker swarm init by hand")


class Busy(Engine):
    """An engine whose Swarm changes a node while somebody else wants to, some times."""

    meanwhile = 0

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        if method == "POST" and self.meanwhile:
            self.meanwhile -= 1
            return 500, {"message": "rpc error: code = Unknown desc = update out of sequence"}
        return super().answer(method, path, query, body)


@pytest.fixture
def engine() -> Busy:
    return Busy({"nodes": {"id1": {
        "ID": "id1", "Version": {"Index": 7}, "Status": {"State": "ready"},
        "Description": {"Hostname": "host1"},
        "Spec": {"Role": "worker", "Availability": "active",
                 "Labels": {"edge": "true", "disk": "ssd"}}}}})


@pytest.fixture
def client(engine: Busy) -> Iterator[docker.DockerClient]:
    with reached(engine) as client:
        yield client


def spec(engine: Engine) -> Any:
    return engine.kinds["nodes"]["id1"]["Spec"]


def test_labels_are_given_and_placements_taken_away(
        engine: Busy, client: docker.DockerClient) -> None:
    wanted = {"edge": "false", "postgres": "true", "zone": "b"}
    assert give_labels(client, "id1", wanted) == ["postgres=true", "zone=b", "no edge"]
    assert spec(engine) == {"Role": "worker", "Availability": "active", "Labels": {
        "disk": "ssd", "postgres": "true", "zone": "b"}}


def test_labels_that_are_so_already_are_left_alone(
        engine: Busy, client: docker.DockerClient) -> None:
    engine.meanwhile = 1
    assert give_labels(client, "id1", {"edge": "true", "registry": "false"}) == []
    assert engine.meanwhile == 1


def test_a_node_that_swarm_changes_meanwhile_is_changed_again(
        engine: Busy, client: docker.DockerClient) -> None:
    engine.meanwhile = 2
    assert give_labels(client, "id1", {"edge": "true", "disk": "hdd"}) == ["disk=hdd"]
    assert spec(engine)["Labels"] == {"edge": "true", "disk": "hdd"}


def test_a_node_gets_its_role_once(engine: Busy, client: docker.DockerClient) -> None:
    engine.kinds["nodes"]["id1"]["ManagerStatus"] = {"Reachability": "reachable"}
    assert [promote(client, "id1") for _ in range(2)] == [True, False]
    assert spec(engine)["Role"] == "manager"
    assert spec(engine)["Labels"] == {"edge": "true", "disk": "ssd"}
    del engine.kinds["nodes"]["id1"]["ManagerStatus"]
    assert [demote(client, "id1") for _ in range(2)] == [True, False]
    assert spec(engine)["Role"] == "worker"


@pytest.mark.parametrize(("change", "role", "status", "fault"), [
    (promote, "worker", {"Reachability": "unreachable"}, "doesn't take part as a manager"),
    (demote, "manager", {"Reachability": "reachable"}, "is still a manager")])
def test_a_role_that_raft_never_learns_of_is_named(
        engine: Busy, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch,
        change: Callable[[docker.DockerClient, str], bool], role: str, status: dict[str, str],
        fault: str) -> None:
    monkeypatch.setattr(joining, "SETTLED", 0.1)
    engine.kinds["nodes"]["id1"]["ManagerStatus"] = status
    spec(engine)["Role"] = role
    assert error_of(lambda: change(client, "id1"), OperatorError) == (
        f"host1 {fault} after 0 s: see: docker node ls, then the same again")


def test_a_change_that_the_swarm_refuses_is_an_error(
        engine: Busy, client: docker.DockerClient) -> None:
    engine.failing = True
    with pytest.raises(docker.errors.APIError):
        promote(client, "id1")


def test_a_swarm_that_listens_for_itself_alone_cant_grow() -> None:
    assert lines(complaints({ONE: managing("127.0.0.1"), WORKER: Membership()})) == [
        "one is a Swarm of one that began without an address for others, and Docker can't give "
        "it one: begin anew on other machines, or leave it alone"]


def test_a_worker_that_the_swarm_doesnt_know_is_refused(client: docker.DockerClient) -> None:
    known = Membership("active", False, "", "id1", "192.0.2.3")
    assert lines(strangers(client, {WORKER: working("192.0.2.3"), ONE: known,
                                    TWO: Membership()})) == [
        "worker belongs to another Swarm: run on it: docker swarm leave, then ./fab bootstrap"]


def test_a_node_that_isnt_ready_in_time_is_named(
        engine: Busy, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "SETTLED", 0.1)
    wait_ready(client, ["id1"])
    engine.kinds["nodes"]["id1"]["Status"] = {"State": "down", "Message": "heartbeat failure"}
    assert error_of(lambda: wait_ready(client, ["id1"]), OperatorError) == (
        "host1 isn't ready (heartbeat failure): see: docker node ls, then ./fab bootstrap")
