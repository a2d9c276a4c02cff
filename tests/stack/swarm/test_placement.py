"""Services that Swarm could never place are refused before any change, and no others."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import pytest

from stack.inventory.settings import ROOT
from stack.swarm import stackfile
from stack.swarm.nodes import Node
from stack.swarm.placement import Committed, Held, Resources, complaints, find_running
from stack.swarm.placement.constraint import Constraint
from stack.swarm.placement.demand import Demand
from stack.swarm.placement.packing import packs
from stack.swarm.placement.resources import Room
from stack.swarm.stackfile import Stack
from tests.support.engine_api import FakeEngine, reached

pytestmark = pytest.mark.unit

MIB = 2**20
Service = dict[str, Any]
NONE = Committed()


def node(name: str, memory: int = 1024, cpus: float = 2, *, role: str = "worker",
         availability: str = "active", state: str = "ready", **labels: str) -> Node:
    """Return a node; `memory` is in MiB."""
    return Node.read({
        "ID": f"id-{name}", "Spec": {"Role": role, "Availability": availability, "Labels": labels},
        "Status": {"State": state, "Addr": "192.0.2.7"},
        "Description": {
            "Hostname": name, "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": int(cpus * 10**9), "MemoryBytes": memory * MIB},
            "Engine": {"Labels": {"disk": "ssd"}}}})


def service(*constraints: str, memory: str = "0", cpus: str = "0", most: int = 0,
            order: str = "stop-first", **more: Any) -> Service:
    """Return a service of a stack file; `more` are keys of its deploy section, or ports."""
    ports = more.pop("ports", [])
    return {"ports": ports, "deploy": {
        "placement": {"constraints": [*constraints], "max_replicas_per_node": most},
        "resources": {"limits": {"memory": "900G", "cpus": "900"},
                      "reservations": {"memory": memory, "cpus": cpus}},
        "update_config": {"order": order}, **more}}


def port(published: int | str = 80, **keys: Any) -> dict[str, Any]:
    return {"mode": "host", "target": 8000, "published": published, "protocol": "tcp", **keys}


def found(nodes: list[Node], services: Mapping[str, Service],
          running: Committed = NONE) -> list[str]:
    """Return the complaints about these services, without a migration."""
    return complaints(Stack({"services": services}), nodes, running, migrates=False)


def tally(replicas: int = 2) -> Stack:
    """Return the stack as it is shipped."""
    return stackfile.load(ROOT / "docker-stack.yml", {
        "APP_REPLICAS": replicas, "HTTP_PORT": 80, "HTTPS_PORT": 443, "DOCKER_GID": "998",
        "OVERLAY_MTU": "1450",
        "TRAEFIK_IMAGE": "traefik:1", "SOCKET_PROXY_IMAGE": "socket-proxy:1",
        "APP_IMAGE": "app:1", "POSTGRES_IMAGE": "postgres:1", "USER_NAME": "Ada",
        "USER_URL": "https://example.org", "APP_PASSWORD": "a", "OWNER_PASSWORD": "o",
        "VISITOR_KEY": "v"})


def only_node(memory: int = 1024) -> Node:
    return node("a", memory, role="manager", edge="true", postgres="true")


# Constraints, by the rules of moby/swarmkit's manager/constraint/constraint_test.go.

@pytest.mark.parametrize("text", [
    "node.labels.zone==north", "node.labels.zone == north", "  node.labels.zone==  NORTH ",
    "NODE.Labels.zone == North", "node.labels.zone != south", "node.labels.none != north",
    "node.id == id-a", "node.hostname == A", "node.hostname != b", "node.role == Worker",
    "node.platform.os == linux", "node.platform.arch == x86_64", "engine.labels.disk == ssd",
    "engine.labels.none != ssd", "node.ip == 192.0.2.7", "node.ip == 192.0.2.0/24",
    "node.ip == 192.0.2.9/24", "node.ip != 198.51.100.0/24", "node.ip != 2001:db8::2",
])
def test_a_node_that_meets_a_constraint_fits(text: str) -> None:
    assert found([node("a", zone="north")], {"app": service(text)}) == []


@pytest.mark.parametrize("text", [
    "node.labels.zone == south", "node.labels.zone != north", "node.labels.Zone == north",
    "node.labels.none == north", "node.id == id", "node.hostname != a", "node.role == manager",
    "node.platform.arch == amd64", "engine.labels.disk == hdd", "engine.labels.zone == north",
    "node.labels. != north", "node.color == red", "node.color != red", "node.ip == 192.0.2.8",
    "node.ip != 192.0.2.0/24", "node.ip == north", "node.ip != north",
])
def test_a_node_that_does_not_meet_a_constraint_does_not_fit(text: str) -> None:
    assert found([node("a", zone="north")], {"app": service(text)}) == [
        f"app: no node that takes tasks has {text}; there is a (worker, zone=north)"]


@pytest.mark.parametrize("text", [
    "node.role", "node.role = manager", "node.role ==", "node.role ==  ", "== manager",
    "node.role > manager", "node.role == a,b", "node.role != a == b", "x == y",
])
def test_a_constraint_that_swarm_refuses_is_a_complaint(text: str) -> None:
    assert Constraint.read(text) is None
    assert found([node("a")], {"app": service(text)}) == [
        f"app: Swarm doesn't understand the constraint {text!r}"]


def test_a_node_without_address_is_in_no_subnet() -> None:
    lost = replace(node("a"), address="")
    assert found([lost], {"app": service("node.ip != 192.0.2.0/24")}) == []
    assert len(found([lost], {"app": service("node.ip == 192.0.2.0/24")})) == 1


def test_a_node_without_a_description_fits_what_needs_none() -> None:
    bare = Node.read({"ID": "id-a", "Description": None, "Status": {"State": "ready"},
                      "Spec": {"Role": "manager", "Availability": "active"}})
    assert found([bare], {"app": service("node.role == manager", "node.hostname != a")}) == []
    assert found([bare], {"app": service("engine.labels.disk == ssd")}) == [
        "app: no node that takes tasks has engine.labels.disk == ssd; there is id-a (manager)"]


def test_all_constraints_have_to_be_met_by_one_node() -> None:
    nodes = [node("a", zone="north"), node("b", role="manager", zone="south", disk="fast")]
    wanted = service("node.labels.zone == north", "node.role == manager")
    assert found(nodes, {"app": wanted}) == [
        "app: no node that takes tasks has node.labels.zone == north and node.role == manager; "
        "there is a (worker, zone=north), b (manager, disk=fast, zone=south)"]


@pytest.mark.parametrize(("keys", "why"), [
    ({"availability": "drain"}, "drained"), ({"availability": "pause"}, "paused"),
    ({"state": "down"}, "down"), ({"state": "unknown"}, "unknown"),
    ({"state": "down", "availability": "drain"}, "down"),
])
def test_a_node_that_would_fit_but_takes_no_tasks_is_named(
        keys: dict[str, Any], why: str) -> None:
    nodes = [node("a", postgres="true", **keys), node("b")]
    assert found(nodes, {"postgres": service("node.labels.postgres == true")}) == [
        "postgres: no node that takes tasks has node.labels.postgres == true; "
        f"it would fit a ({why})"]


def test_without_a_node_that_takes_tasks_nothing_runs() -> None:
    assert found([node("a", availability="drain")], {"app": service()}) == [
        "app: no node takes tasks; it would fit a (drained)"]


def test_a_global_service_without_nodes_is_a_complaint() -> None:
    wanted = service("node.labels.edge == true", mode="global")
    assert found([node("a")], {"traefik": wanted}) == [
        "traefik: no node that takes tasks has node.labels.edge == true; there is a (worker)"]
    assert found([node("a"), node("b", edge="true")], {"traefik": wanted}) == []


def test_a_service_without_tasks_needs_no_node() -> None:
    none = service(replicas=0, memory="2G", most=1, order="start-first")
    assert found([node("a")], {"app": none}) == []
    assert found([node("a")], {"app": service("node.role == manager", replicas=0)}) == []


def test_only_the_first_of_many_nodes_are_named() -> None:
    nodes = [node(f"n{number}") for number in range(8)]
    assert found(nodes, {"app": service("node.role == manager")}) == [
        "app: no node that takes tasks has node.role == manager; there is n0 (worker), "
        "n1 (worker), n2 (worker), n3 (worker), n4 (worker), 3 more"]


def test_every_service_at_fault_has_its_line() -> None:
    wanted = {"app": service(memory="2G"), "web": service("node.role == manager"),
              "fine": service(), "traefik": service("bad")}
    assert [line.partition(":")[0] for line in found([node("a")], wanted)] \
        == ["web", "traefik", "app"]


# Replicas on a node.

def test_more_tasks_than_nodes_allow_is_a_complaint() -> None:
    nodes = [node("a", zone="x"), node("b", zone="x"), node("c")]
    wanted = service("node.labels.zone == x", replicas=5, most=2)
    assert found(nodes, {"app": wanted}) == [
        "app: 5 tasks, at most 2 per node, but the nodes that fit are: a (worker, zone=x), "
        "b (worker, zone=x)"]
    assert found(nodes, {"app": service("node.labels.zone == x", replicas=4, most=2)}) == []


def test_a_task_started_first_counts_towards_the_maximum_per_node() -> None:
    wanted = service(replicas=1, most=1, order="start-first")
    assert found([node("a")], {"app": wanted}) == [
        "app: 1 task, and one more during an update, at most 1 per node, but the nodes that "
        "fit are: a (worker)"]
    assert found([node("a"), node("b")], {"app": wanted}) == []


def test_the_rollback_order_counts_too() -> None:
    wanted = service(replicas=1, most=1, rollback_config={"order": "start-first"})
    assert len(found([node("a")], {"app": wanted})) == 1


# Reservations.

@pytest.mark.parametrize(("keys", "each"), [
    ({"memory": "1025M"}, "1025 MiB, 0 CPUs"), ({"memory": "1025MiB"}, "1025 MiB, 0 CPUs"),
    ({"memory": "1.5g"}, "1536 MiB, 0 CPUs"), ({"cpus": "2.01"}, "0 MiB, 2.01 CPUs"),
    ({"memory": "1G", "cpus": "3"}, "1024 MiB, 3 CPUs"),
])
def test_a_task_larger_than_any_node_that_fits_is_a_complaint(
        keys: dict[str, Any], each: str) -> None:
    nodes = [node("a", zone="x"), node("b", 9000, 9)]
    assert found(nodes, {"app": service("node.labels.zone == x", **keys)}) == [
        f"app: a task reserves {each}, which is too much for a (1024 MiB, 2 CPUs)"]


def test_a_task_may_be_too_large_for_some_nodes() -> None:
    assert found([node("a"), node("b", 4096)], {"app": service(memory="2G")}) == []


def test_a_task_may_take_all_of_a_node() -> None:
    assert found([node("a")], {"app": service(memory="1G", cpus="2.0")}) == []


def test_a_task_needs_cpus_and_memory_on_the_same_node() -> None:
    nodes = [node("a", 8192, 1), node("b", 1024, 8)]
    assert found(nodes, {"app": service(memory="2G", cpus="2")}) == [
        "app: a task reserves 2048 MiB, 2 CPUs, which is too much for a (8192 MiB, 1 CPUs), "
        "b (1024 MiB, 8 CPUs)"]


def test_a_global_service_has_to_fit_every_node() -> None:
    nodes = [node("a", 4096), node("b", 1024), node("c", 512, availability="drain")]
    assert found(nodes, {"agent": service(memory="2G", mode="global")}) == [
        "agent: a task reserves 2048 MiB, 0 CPUs, which is too much for b (1024 MiB, 2 CPUs)"]
    assert found(nodes, {"agent": service(memory="1G", mode="global")}) == []


def test_other_stacks_reservations_are_not_free() -> None:
    others = {"id-a": Held(Resources(10**9, 600 * MIB))}
    assert found([node("a")], {"app": service(memory="500M")}, Committed(others=others)) == [
        "app: a task reserves 500 MiB, 0 CPUs, which is too much for a (424 MiB, 1 CPUs)"]
    assert found([node("a")], {"app": service(memory="500M")}, Committed(own=others)) == []


def test_tasks_that_fit_one_by_one_but_not_together_are_a_complaint() -> None:
    nodes = [node("a", postgres="true"), node("b")]
    services = {"app": service(memory="600M", replicas=2),
                "postgres": service("node.labels.postgres == true", memory="500M")}
    assert found(nodes, services) == [
        "app: 2 tasks of 600 MiB, 0 CPUs each don't all fit beside postgres on "
        "a (1024 MiB, 2 CPUs), b (1024 MiB, 2 CPUs)"]
    assert found([*nodes, node("c")], services) == []


def test_free_room_on_several_nodes_doesnt_add_up() -> None:
    nodes = [node("a"), node("b"), node("c")]
    assert found(nodes, {"app": service(memory="600M", replicas=4)}) == [
        "app: 4 tasks of 600 MiB, 0 CPUs each don't all fit on a (1024 MiB, 2 CPUs), "
        "b (1024 MiB, 2 CPUs), c (1024 MiB, 2 CPUs)"]
    assert found(nodes, {"app": service(memory="600M", replicas=3)}) == []


def test_cpus_run_out_like_memory() -> None:
    assert len(found([node("a")], {"app": service(cpus="0.5", replicas=5)})) == 1
    assert found([node("a")], {"app": service(cpus="0.5", replicas=4)}) == []


def test_a_solution_that_largest_first_would_miss_is_found() -> None:
    # One large task on each node would leave no room for the second small one.
    nodes = [node("a", 500), node("b", 600)]
    services = {"large": service(memory="300M", replicas=2),
                "small": service(memory="250M", replicas=2)}
    assert found(nodes, services) == []
    assert len(found(nodes, {**services, "more": service(memory="1M")})) == 1


def possible(rooms: Mapping[str, Room], demands: list[Demand]) -> bool:
    """Return whether each task can have a node, by trying every combination."""
    tasks = [demand for demand in demands for _ in range(demand.tasks)]
    return any(all(obeyed(room, [task for task, chosen in zip(tasks, way) if chosen == name])
                   for name, room in rooms.items())
               for way in product(rooms, repeat=len(tasks))
               if all(name in task.nodes for task, name in zip(tasks, way)))


def obeyed(room: Room, tasks: list[Demand]) -> bool:
    ports = [port for task in tasks for port in task.ports]
    return sum(task.each.memory for task in tasks) <= room.free.memory \
        and sum(task.each.nano_cpus for task in tasks) <= room.free.nano_cpus \
        and len(ports) == len(set(ports)) \
        and all(tasks.count(task) <= task.most for task in tasks)


def test_the_answer_matches_that_of_trying_everything() -> None:
    chance, answers = Random(7), []
    for _ in range(400):
        rooms = {name: Room(Resources(chance.randint(3, 7), chance.randint(3, 7)))
                 for name in "abc"}
        demands = [Demand(str(number), chance.randint(1, 2),
                          Resources(chance.randint(0, 3), chance.randint(0, 4)),
                          tuple(sorted(chance.sample("abc", chance.randint(1, 3)))),
                          chance.choice([1, 2, 9]), frozenset(chance.choice([[], [], ["80/tcp"]])))
                   for number in range(chance.randint(2, 4))]
        answers.append(possible(rooms, demands))
        assert packs(rooms, demands) is answers[-1]
    assert 100 < sum(answers) < 300


def test_a_service_that_reserves_nothing_fits_a_full_node() -> None:
    assert found([node("a")], {"full": service(memory="1G", cpus="2"),
                               "app": service(replicas=900)}) == []


def test_hundreds_of_tasks_on_many_nodes_are_decided() -> None:
    nodes = [node(f"n{number}") for number in range(60)]
    assert found(nodes, {"app": service(memory="100M", replicas=600)}) == []
    assert len(found(nodes, {"app": service(memory="100M", replicas=601)})) == 1


def test_many_services_that_dont_fit_are_decided() -> None:
    nodes = [node(f"n{number}", 1000) for number in range(4)]
    services = {f"s{number}": service(memory="101M", replicas=8) for number in range(5)}
    assert found(nodes, services) == [
        "s4: 8 tasks of 101 MiB, 0 CPUs each don't all fit beside s0, s1, s2, s3 on "
        "n0 (1000 MiB, 2 CPUs), n1 (1000 MiB, 2 CPUs), n2 (1000 MiB, 2 CPUs), "
        "n3 (1000 MiB, 2 CPUs)"]


def test_a_case_that_takes_too_long_gets_no_complaint() -> None:
    nodes = [node(f"n{number}", 1000) for number in range(12)]
    # A node has room for one: 15 tasks don't fit on 12 nodes, but there are many ways to try.
    services = {f"s{number}": service(memory=f"{501 + number}M", replicas=3)
                for number in range(5)}
    assert found(nodes, services) == []


# Updates.

def test_an_update_that_starts_first_needs_room_for_one_more() -> None:
    wanted = service(memory="300M", replicas=3, order="start-first")
    assert found([node("a")], {"app": wanted}) == [
        "app: an update starts a new task of 300 MiB, 0 CPUs first, and it doesn't fit beside "
        "the running tasks on a (1024 MiB, 2 CPUs)"]
    assert found([node("a", 1200)], {"app": wanted}) == []
    assert found([node("a")], {"app": service(memory="300M", replicas=3)}) == []


def test_services_that_start_first_can_be_updated_one_after_the_other() -> None:
    both = {name: service(memory="300M", order="start-first") for name in ("app", "web")}
    assert found([node("a", 900)], both) == []
    assert len(found([node("a", 800)], both)) == 2


def test_a_global_service_that_starts_first_needs_room_on_every_node() -> None:
    wanted = service(memory="300M", mode="global", order="start-first")
    assert found([node("a"), node("b", 500)], {"agent": wanted}) == [
        "agent: an update starts a new task of 300 MiB, 0 CPUs first, and it doesn't fit beside "
        "the running tasks on a (1024 MiB, 2 CPUs), b (500 MiB, 2 CPUs)"]
    assert found([node("a"), node("b", 600)], {"agent": wanted}) == []


# Ports of a node.

def test_a_node_has_a_port_only_once() -> None:
    nodes = [node("a"), node("b")]
    assert found(nodes, {"web": service(ports=[port()], replicas=3)}) == [
        "web: 3 tasks, each with 80/tcp of a node to itself, but the nodes that fit and have that "
        "free are: a (worker), b (worker)"]
    assert found(nodes, {"web": service(ports=[port()], replicas=2)}) == []


@pytest.mark.parametrize("other", [port(81), port(protocol="udp"), port(mode="ingress"),
                                   port(0), "80:8000"])
def test_different_or_shared_ports_dont_conflict(other: Any) -> None:
    assert found([node("a")], {"one": service(ports=[port()]), "two": service(ports=[other])}) == []


def test_services_with_the_same_port_need_separate_nodes() -> None:
    services = {"traefik": service("node.labels.edge == true", mode="global", ports=[port("80")]),
                "web": service(ports=[port(80), port(81)])}
    assert found([node("a", edge="true")], services) == [
        "traefik and web: both need port 80/tcp of a node to themselves, and only these nodes fit: "
        "a (worker, edge=true)"]
    assert found([node("a", edge="true"), node("b")], services) == []


def test_docker_chooses_a_port_for_each_task_if_none_is_given() -> None:
    assert found([node("a")], {"web": service(ports=[port(0)], replicas=3)}) == []


def test_memory_is_named_as_the_reason_if_it_is() -> None:
    both = {name: service(ports=[port()], memory="600M") for name in ("one", "two")}
    assert found([node("a"), node("b", 100)], both) == [
        "two: 1 task of 600 MiB, 0 CPUs each don't all fit beside one on a (1024 MiB, 2 CPUs), "
        "b (100 MiB, 2 CPUs)"]


def test_another_stacks_port_is_not_free() -> None:
    others = {"id-a": Held(ports=frozenset({"5000/tcp"}))}
    wanted = service(ports=[port(5000)], mode="global")
    assert found([node("a"), node("b")], {"web": wanted}, Committed(others=others)) == [
        "web: 2 tasks, each with 5000/tcp of a node to itself, but the nodes that fit and have "
        "that free are: b (worker)"]
    assert found([node("a"), node("b")], {"web": wanted}, Committed(own=others)) == []


def test_a_global_update_that_starts_first_never_gets_its_port() -> None:
    nodes = [node("a"), node("b")]
    wanted = service(ports=[port()], mode="global", order="start-first")
    assert found(nodes, {"web": wanted}) == [
        "web: an update starts the new task first, where the old one holds 80/tcp: "
        "it would wait forever"]
    assert found(nodes, {"web": service(ports=[port()], mode="global")}) == []


def test_a_free_node_lets_an_update_with_a_port_start_first() -> None:
    wanted = service(ports=[port()], order="start-first", replicas=2)
    assert found([node("a"), node("b"), node("c")], {"web": wanted}) == []
    assert found([node("a"), node("b")], {"web": wanted}) == [
        "web: 2 tasks, and one more during an update, each with 80/tcp of a node to itself, but "
        "the nodes that fit and have that free are: a (worker), b (worker)"]


# The stack as it is shipped, and its migration.

def test_the_stack_fits_one_small_node() -> None:
    assert complaints(tally(), [only_node(1024)], NONE) == []


def test_the_stack_needs_its_labels() -> None:
    assert complaints(tally(), [node("a", role="manager")], NONE) == [
        "traefik: no node that takes tasks has node.labels.edge == true; there is a (manager)",
        "postgres: no node that takes tasks has node.labels.postgres == true; "
        "there is a (manager)"]


# 64 traefik, 16 socket-proxy, 256 postgres, 2 × 128 app: 592 MiB; and 128 MiB for one more.
@pytest.mark.parametrize(("memory", "culprits"), [
    (591, ["app"]), (592, ["socket-proxy", "app"]), (608, ["app"]), (719, ["app"]), (720, [])])
def test_the_stack_needs_its_reservations_and_room_for_an_update(
        memory: int, culprits: list[str]) -> None:
    lines = complaints(tally(), [only_node(memory)], NONE)
    assert [line.partition(":")[0] for line in lines] == culprits


@pytest.mark.parametrize(("left", "expected"), [(128, []), (127, [
    "migrate: the job reserves 128 MiB, 0 CPUs, which doesn't fit into what is left of "
    "a (127 MiB, 2 CPUs)"])])
def test_the_migration_needs_room_beside_the_running_tasks(left: int, expected: list[str]) -> None:
    own = {"id-a": Held(Resources(0, (2000 - left) * MIB))}
    running = Committed(frozenset({"postgres", "app"}), own)
    assert complaints(tally(), [only_node(2000)], running) == expected
    assert complaints(tally(), [only_node(2000)], running, migrates=False) == []


def test_running_tasks_stay_on_their_nodes_during_the_migration() -> None:
    own = {"id-a": Held(Resources(0, 1000 * MIB)), "id-b": Held(Resources(0, 1000 * MIB))}
    running = Committed(frozenset({"postgres", "app"}), own)
    assert complaints(tally(), [only_node(), node("b")], running) == [
        "migrate: the job reserves 128 MiB, 0 CPUs, which doesn't fit into what is left of "
        "a (24 MiB, 2 CPUs), b (24 MiB, 2 CPUs)"]


def test_the_migration_needs_none_of_the_apps_ports() -> None:
    stack = tally(1)
    stack.services["app"]["ports"] = [port(8000)]
    stack.services["app"]["deploy"].update(update_config={}, rollback_config={})
    running = Committed(frozenset({"postgres"}), {"id-a": Held(ports=frozenset({"8000/tcp"}))})
    assert complaints(stack, [only_node()], running) == []


def test_the_first_migration_needs_room_beside_the_database() -> None:
    own = {"id-a": Held(Resources(0, 641 * MIB))}
    running = Committed(frozenset({"app"}), own)
    assert complaints(tally(), [only_node()], running) == [
        "migrate: the job reserves 128 MiB, 0 CPUs, which doesn't fit beside postgres into "
        "what is left of a (383 MiB, 2 CPUs)"]
    less = Committed(frozenset({"app"}), {"id-a": Held(Resources(0, 640 * MIB))})
    assert complaints(tally(), [only_node()], less) == []


# Running tasks, as an engine reports them.

def held_service(name: str, stack: str, *ports: dict[str, Any]) -> dict[str, Any]:
    return {"ID": name, "Spec": {"Name": f"{stack}_{name}", "EndpointSpec": {"Ports": [*ports]},
                                 "Labels": {"com.docker.stack.namespace": stack}}}


def task(owner: str, host: str, *, state: str = "running", desired: str = "running",
         reserved: Mapping[str, int] | None = None) -> dict[str, Any]:
    return {"ID": "t", "ServiceID": owner, "NodeID": host, "DesiredState": desired,
            "Status": {"State": state}, "Spec": {"Resources": {"Reservations": reserved}}}


def running_on(services: list[dict[str, Any]], *tasks: dict[str, Any]) -> Committed:
    fake = FakeEngine()
    fake.kinds["services"] = {each["ID"]: each for each in services}
    fake.kinds["tasks"] = {str(place): each for place, each in enumerate(tasks)}
    with reached(fake) as engine:
        return find_running(engine)


APP = held_service("app", "tally")
REGISTRY = held_service("registry", "tally-registry", {
    "PublishMode": "host", "PublishedPort": 5000, "Protocol": "tcp"}, {
    "PublishMode": "ingress", "PublishedPort": 6000, "Protocol": "tcp"})
RESERVED = {"MemoryBytes": 32 * MIB, "NanoCPUs": 10**9}
HELD = Held(Resources(10**9, 32 * MIB))


def test_the_stacks_own_tasks_are_distinguished_from_others() -> None:
    seen = running_on([APP, REGISTRY], task("app", "n1", reserved=RESERVED),
                      task("app", "n1", state="starting", reserved=RESERVED), task("app", "n2"),
                      task("registry", "n1", reserved=RESERVED))
    assert seen == Committed(
        frozenset({"app"}), {"n1": Held(Resources(2 * 10**9, 64 * MIB)), "n2": Held()},
        {"n1": Held(HELD.resources, frozenset({"5000/tcp"}))})


@pytest.mark.parametrize(("state", "desired"), [
    ("pending", "running"), ("failed", "running"), ("running", "shutdown"),
    ("running", "remove"), ("running", "complete"), ("complete", "complete"),
])
def test_unassigned_and_stopping_tasks_hold_nothing(state: str, desired: str) -> None:
    assert running_on([REGISTRY], task("registry", "n1", state=state, desired=desired,
                                       reserved=RESERVED)) == NONE


def test_a_task_without_a_service_belongs_to_others() -> None:
    alone = task("", "n1", reserved={"MemoryBytes": 32 * MIB})
    del alone["ServiceID"]
    assert running_on([], alone).others == {"n1": Held(Resources(0, 32 * MIB))}
