"""Find the services that Swarm could never place: it would leave their tasks pending for ever."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import reduce
from ipaddress import ip_address, ip_network
from itertools import combinations
from typing import Any

import docker
from docker.utils import parse_bytes

from stack.definition import Stack
from stack.swarm import STACK

Node = Mapping[str, Any]
Service = Mapping[str, Any]
# The rules are those of moby/swarmkit: manager/constraint/constraint.go, and
# manager/scheduler/filter.go and nodeinfo.go.
CONSTRAINT = re.compile(r"\s*(?P<key>[a-z_][a-z0-9\-_.]+)\s*(?P<operator>==|!=)"
                        r"\s*(?P<value>[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+?)\s*",
                        re.IGNORECASE | re.ASCII)
NODE_LABEL, ENGINE_LABEL = "node.labels.", "engine.labels."
# Of a task that has a node's resources: until it has ended, whatever is wanted of it.
HOLDING = {"assigned", "accepted", "preparing", "ready", "starting", "running"}
UNLIMITED = sys.maxsize
SHOWN = 5  # nodes, in a line
# Ways of placing tasks that are tried before the answer is "it may be possible".
TRIES = 2000


@dataclass(frozen=True)
class Resources:
    """CPUs, in billionths, and bytes of memory."""

    nano_cpus: int = 0
    memory: int = 0

    @classmethod
    def read(cls, given: Mapping[str, int] | None) -> "Resources":
        """Read them as the Engine API has them."""
        given = given or {}
        return cls(given.get("NanoCPUs") or 0, given.get("MemoryBytes") or 0)

    @classmethod
    def reserved(cls, service: Service) -> "Resources":
        """Read what one task of a service reserves; limits reserve nothing."""
        given = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
        # The SDK doesn't know the MiB that the command line takes.
        memory = str(given.get("memory", 0)).lower().replace("ib", "b")
        return cls(int(Decimal(str(given.get("cpus", 0))) * 10**9), int(parse_bytes(memory)))

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.nano_cpus + other.nano_cpus, self.memory + other.memory)

    def __mul__(self, count: int) -> "Resources":
        return Resources(self.nano_cpus * count, self.memory * count)

    def __sub__(self, other: "Resources") -> "Resources":
        return self + other * -1

    def __floordiv__(self, each: "Resources") -> int:
        """Return how many times another fits in."""
        pairs = ((self.nano_cpus, each.nano_cpus), (self.memory, each.memory))
        return max(0, min((have // want for have, want in pairs if want), default=UNLIMITED))

    def __str__(self) -> str:
        return f"{_number(self.nano_cpus / 10**9)} CPUs, {_number(self.memory / 2**20)} MiB"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Held:
    """What tasks have of a node; a port is written 80/tcp."""

    resources: Resources = Resources()
    ports: frozenset[str] = frozenset()

    def __add__(self, other: "Held") -> "Held":
        return Held(self.resources + other.resources, self.ports | other.ports)


@dataclass(frozen=True)
class Running:
    """The services of the stack that exist, and what tasks have of each node, by its id.

    `own` tasks are the stack's, `others` are those of anything else on the Swarm.
    """

    services: frozenset[str] = frozenset()
    own: Mapping[str, Held] = field(default_factory=dict)
    others: Mapping[str, Held] = field(default_factory=dict)


@dataclass(frozen=True)
class Constraint:
    """One condition on a node, as Swarm reads it."""

    key: str
    operator: str
    value: str

    @classmethod
    def read(cls, text: str) -> "Constraint | None":
        """Return what a text says, or None if Swarm would refuse it."""
        found = CONSTRAINT.fullmatch(text)
        return cls(found["key"], found["operator"], found["value"]) if found else None

    def fits(self, node: Node) -> bool:
        """Tell whether a node meets it; Swarm has no node for a key that it doesn't know.

        Values and the words of a key are compared without regard to case, labels with it.
        """
        if self.key.lower() == "node.ip":
            return self._fits_address(node["Status"].get("Addr", ""))
        found = self._of(node)
        if found is None:
            return False
        return (found.casefold() == self.value.casefold()) is (self.operator == "==")

    def _of(self, node: Node) -> str | None:
        spec, description = node["Spec"], node.get("Description") or {}
        platform = description.get("Platform") or {}
        for prefix, owner in ((NODE_LABEL, spec), (ENGINE_LABEL, description.get("Engine") or {})):
            if self.key.lower().startswith(prefix) and len(self.key) > len(prefix):
                return str((owner.get("Labels") or {}).get(self.key[len(prefix):], ""))
        return {"node.id": node["ID"], "node.hostname": description.get("Hostname", ""),
                "node.role": spec["Role"], "node.platform.os": platform.get("OS", ""),
                "node.platform.arch": platform.get("Architecture", ""),
                }.get(self.key.lower())

    def _fits_address(self, address: str) -> bool:
        try:
            subnet = ip_network(self.value, strict=False)
        except ValueError:
            return False
        try:
            inside = ip_address(address) in subnet
        except ValueError:
            inside = False
        return inside is (self.operator == "==")


@dataclass(frozen=True)
class Demand:
    """The tasks of a service, and what each of them needs of its node.

    `nodes` are the ids of those that fit; `most` is how many tasks one of them may have.
    A service that is `everywhere` has one task on each. Of one that `starts_first`, an
    update has one more for a while.
    """

    name: str
    tasks: int
    each: Resources
    nodes: tuple[str, ...]
    most: int = UNLIMITED
    ports: frozenset[str] = frozenset()
    everywhere: bool = False
    starts_first: bool = False

    @classmethod
    def read(cls, name: str, service: Service, nodes: Iterable[Node]) -> "Demand":
        """Read a service of a stack file, for the nodes that take tasks."""
        deploy = service.get("deploy") or {}
        fitting = tuple(node["ID"] for node in nodes if _fits(service, node))
        everywhere = deploy.get("mode") == "global"
        orders = {(deploy.get(key) or {}).get("order")
                  for key in ("update_config", "rollback_config")}
        most = (deploy.get("placement") or {}).get("max_replicas_per_node")
        return cls(name, len(fitting) if everywhere else int(deploy.get("replicas", 1)),
                   Resources.reserved(service), fitting,
                   1 if everywhere else int(most or UNLIMITED), _host_ports(service),
                   everywhere, "start-first" in orders)

    @property
    def at_once(self) -> int:
        """How many tasks there are during an update."""
        return self.tasks + (self.starts_first and not self.everywhere)

    def extras(self) -> Iterator["Demand"]:
        """Yield what an update needs besides, on any of the nodes or on each in turn."""
        if self.everywhere:
            for node in self.nodes:
                yield replace(self, tasks=1, nodes=(node,))
        else:
            yield replace(self, tasks=1)

    def __str__(self) -> str:
        tasks = f"{self.tasks} task" + "s" * (self.tasks != 1)
        return tasks + ", and one more during an update" * (self.at_once > self.tasks)


@dataclass(frozen=True)
class Room:
    """What is left of a node."""

    free: Resources
    ports: frozenset[str] = frozenset()

    def without(self, held: Held) -> "Room":
        return Room(self.free - held.resources, self.ports | held.ports)

    def holds(self, demand: Demand) -> int:
        """Return how many tasks of a service there is room for."""
        if demand.ports & self.ports:
            return 0
        most = 1 if demand.ports else demand.most
        return min(most, self.free // demand.each)


Rooms = Mapping[str, Room]


@dataclass(frozen=True)
class Swarm:
    """The nodes, of which some take tasks, and the room that other stacks leave there."""

    nodes: Sequence[Node]
    rooms: Rooms

    @classmethod
    def read(cls, nodes: Sequence[Node], others: Mapping[str, Held]) -> "Swarm":
        return cls(nodes, {node["ID"]: Room(Resources.read(
            (node.get("Description") or {}).get("Resources"))).without(others.get(
                node["ID"], Held())) for node in nodes if not _unusable(node)})

    @property
    def usable(self) -> list[Node]:
        return [node for node in self.nodes if node["ID"] in self.rooms]

    def list(self, wanted: Iterable[str], say: Callable[[Node], object]) -> str:
        """Name nodes, with something to say of each; of many, only the first."""
        ids = set(wanted)
        found = [f"{_hostname(node)} ({say(node)})" for node in self.nodes if node["ID"] in ids]
        more = [f"{len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return ", ".join(found[:SHOWN] + more) or "no nodes"

    def show_room(self, wanted: Iterable[str]) -> str:
        return self.list(wanted, lambda node: self.rooms[node["ID"]].free)


def complaints(stack: Stack, nodes: Sequence[Node], running: Running,
               migrates: bool = True) -> list[str]:
    """Return a line for each reason why the stack could not run, or never be updated, there.

    `nodes` are what the Engine API's list of nodes gives. The room for the migration's
    job is looked for beside what is running; leave it out with `migrates`.

    Whatever could be placed in some way gets no complaint. That is less than a promise
    that it will be: Swarm spreads tasks without looking ahead, and may end up in a corner
    of which another order would have stayed clear. A node that is paused counts as one
    without tasks, as none can be replaced there.
    """
    swarm = Swarm.read(nodes, running.others)
    lines = [line for name, service in stack.services.items()
             if (line := _misplaced(name, service, swarm))]
    demands = [demand for name, service in stack.services.items()
               if (demand := Demand.read(name, service, swarm.usable)).tasks and demand.nodes]
    lines += [line for demand in demands if (line := _alone(demand, swarm))]
    if lines := lines or _same_ports(demands, swarm):
        return lines
    job = [_migration(stack, demands, swarm, running)] if migrates else []
    return [line for line in (*_together(demands, swarm), *job) if line]


def _misplaced(name: str, service: Service, swarm: Swarm) -> str:
    """Say that no node that takes tasks fits a service, or return ""."""
    deploy = service.get("deploy") or {}
    texts = _constraints(service)
    for text in texts:
        if Constraint.read(text) is None:
            return f"{name}: the constraint {text!r} is none that Swarm understands"
    if any(_fits(service, node) for node in swarm.usable) \
            or deploy.get("mode") != "global" and deploy.get("replicas") == 0:
        return ""
    wanted = f"{name}: no node takes its tasks" if not texts else \
        f"{name}: no node that takes tasks has {' and '.join(texts)}"
    if fitting := [node["ID"] for node in swarm.nodes if _fits(service, node)]:
        return f"{wanted}; it would be {swarm.list(fitting, _unusable)}"
    return f"{wanted}; there are {swarm.list((node['ID'] for node in swarm.nodes), _traits)}"


def _alone(demand: Demand, swarm: Swarm) -> str:
    """Say why a service couldn't be placed even if it were the only one, or return ""."""
    return _too_large(demand, swarm) or _too_many(demand, swarm) or _no_port(demand, swarm)


def _too_large(demand: Demand, swarm: Swarm) -> str:
    small = [node for node in demand.nodes if not swarm.rooms[node].free // demand.each]
    if not small or not demand.everywhere and len(small) < len(demand.nodes):
        return ""
    return f"{demand.name}: a task reserves {demand.each}; too much for {swarm.show_room(small)}"


def _too_many(demand: Demand, swarm: Swarm) -> str:
    # Swarm counts the old task until the new one runs.
    if demand.everywhere or demand.at_once <= demand.most * len(demand.nodes):
        return ""
    return (f"{demand.name}: {demand}, at most {demand.most} on a node, "
            f"fit only on {swarm.show_room(demand.nodes)}")


def _no_port(demand: Demand, swarm: Swarm) -> str:
    ports = " and ".join(sorted(demand.ports))
    free = [node for node in demand.nodes if not demand.ports & swarm.rooms[node].ports]
    if not ports:
        return ""
    if demand.everywhere and demand.starts_first:
        return (f"{demand.name}: an update starts the new task first, which would wait for ever "
                f"for {ports} on the old one's node")
    if demand.at_once > len(free):
        return (f"{demand.name}: {demand}, each with {ports} of its node to itself; "
                f"free on {swarm.show_room(free)}")
    return ""


def _same_ports(demands: Sequence[Demand], swarm: Swarm) -> list[str]:
    """Say which services are in each other's way by a port."""
    return [f"{one.name} and {two.name}: both want {' and '.join(sorted(shared))} of a node to "
            f"themselves; free on {swarm.show_room({*one.nodes, *two.nodes})}"
            for one, two in combinations(demands, 2) if (shared := one.ports & two.ports)
            and not packs(swarm.rooms, [replace(each, each=Resources()) for each in (one, two)])]


def _together(demands: Sequence[Demand], swarm: Swarm) -> list[str]:
    """Say which service has no room beside those with less choice, or else for its updates."""
    ordered = _ordered(demands)
    for place, demand in enumerate(ordered):
        if not packs(swarm.rooms, ordered[:place + 1]):
            others = ", ".join(other.name for other in ordered[:place])
            tasks = replace(demand, starts_first=False)
            return [f"{demand.name}: {tasks}, each of which reserves {demand.each}, don't fit "
                    f"{'beside ' + others if others else 'all'} on "
                    f"{swarm.show_room(demand.nodes)}"]
    return [f"{demand.name}: an update starts the new task first, and there is no room for one "
            f"more that reserves {demand.each} beside all others on "
            f"{swarm.show_room(demand.nodes)}"
            for demand in ordered if demand.starts_first
            and not all(packs(swarm.rooms, _with(ordered, extra)) for extra in demand.extras())]


def _with(demands: Sequence[Demand], extra: Demand) -> list[Demand]:
    """Return the demands with an update's task; it counts for how many a node may have."""
    if extra.everywhere:
        return [*demands, extra]
    return [replace(each, tasks=each.tasks + 1) if each.name == extra.name else each
            for each in demands]


def _migration(stack: Stack, demands: Sequence[Demand], swarm: Swarm, running: Running) -> str:
    """Say that the migration's job finds no room, or return "".

    What runs stays where it is meanwhile. Before the first release, that is nothing,
    and the database is started for the job.
    """
    rooms = {node: room.without(running.own.get(node, Held()))
             for node, room in swarm.rooms.items()}
    job = replace(Demand.read("migrate", stack.migrate, swarm.usable), tasks=1, most=UNLIMITED,
                  ports=frozenset(), everywhere=False)
    first = [demand for demand in demands if demand.name == "postgres"
             and demand.name not in running.services]
    if packs(rooms, [*first, job]):
        return ""
    return (f"migrate: the job reserves {job.each}, and beside what runs there is no room for it "
            f"on {swarm.list(job.nodes, lambda node: rooms[node['ID']].free)}")


def packs(rooms: Rooms, demands: Iterable[Demand]) -> bool:
    """Tell whether there is a way to give every task a node.

    It begins with those that have the least choice and then the largest, and as many as
    possible on a node, and takes back what leads nowhere. After a while without an answer
    it says yes, so that a no is certain.
    """
    open_ways = [(rooms, tuple(_ordered(demands)))]
    for _ in range(TRIES):
        if not open_ways:
            return False
        way = open_ways.pop()
        if not way[1]:
            return True
        if all(_capacity(way[0], demand) >= demand.tasks for demand in way[1]):
            open_ways += _next(*way)
    return True


def _ordered(demands: Iterable[Demand]) -> list[Demand]:
    return sorted(demands, key=lambda demand: (
        not demand.everywhere, len(demand.nodes), -demand.each.memory, -demand.each.nano_cpus))


def _capacity(rooms: Rooms, demand: Demand) -> int:
    return sum(rooms[node].holds(demand) for node in demand.nodes)


def _next(rooms: Rooms, demands: tuple[Demand, ...]) -> Iterator[tuple[Rooms, tuple[Demand, ...]]]:
    """Yield the ways to use the first node of the first service; the fullest last."""
    first, rest = demands[0], demands[1:]
    node, room = first.nodes[0], rooms[first.nodes[0]]
    for count in range(min(first.tasks, room.holds(first)) + 1):
        taken = Held(first.each * count, first.ports if count else frozenset())
        left = replace(first, tasks=first.tasks - count, nodes=first.nodes[1:])
        yield {**rooms, node: room.without(taken)}, (left, *rest) if left.tasks else rest


def find_running(client: docker.DockerClient) -> Running:
    """Ask the Swarm what the tasks on its nodes hold.

    Tasks that are to end don't count: neither those that are stopping nor jobs.
    """
    services = {service.id: service.attrs["Spec"] for service in client.services.list()}
    own = {key: spec["Name"].removeprefix(f"{STACK}_") for key, spec in services.items()
           if (spec.get("Labels") or {}).get("com.docker.stack.namespace") == STACK}
    tasks = [task for task in client.api.tasks()
             if task["DesiredState"] == "running" and task["Status"]["State"] in HOLDING]
    return Running(frozenset(own.values()), *(
        _sum((task["NodeID"], _held(task, services)) for task in tasks
             if (task.get("ServiceID") in own) is mine) for mine in (True, False)))


def _held(task: Mapping[str, Any], services: Mapping[str, Any]) -> Held:
    reserved = (task["Spec"].get("Resources") or {}).get("Reservations")
    # A container on an attachable network is a task without a service.
    endpoint = services.get(task.get("ServiceID"), {}).get("EndpointSpec") or {}
    return Held(Resources.read(reserved), frozenset(
        f"{port['PublishedPort']}/{port['Protocol']}" for port in endpoint.get("Ports") or []
        if port.get("PublishMode") == "host" and port.get("PublishedPort")))


def _sum(each: Iterable[tuple[str, Held]]) -> dict[str, Held]:
    total: dict[str, Held] = {}
    for node, held in each:
        total[node] = total.get(node, Held()) + held
    return total


def _host_ports(service: Service) -> frozenset[str]:
    """Return the ports that only one task on a node can have.

    Not those of the routing mesh, nor any that Docker may choose.
    """
    return frozenset(f"{port['published']}/{port.get('protocol', 'tcp')}"
                     for port in service.get("ports") or [] if isinstance(port, dict)
                     and port.get("mode") == "host" and int(port.get("published") or 0))


def _constraints(service: Service) -> list[str]:
    return list(((service.get("deploy") or {}).get("placement") or {}).get("constraints") or [])


def _fits(service: Service, node: Node) -> bool:
    found = map(Constraint.read, _constraints(service))
    return all(constraint is not None and constraint.fits(node) for constraint in found)


def _unusable(node: Node) -> str:
    """Say why a node takes no tasks, or return ""."""
    state, availability = node["Status"]["State"], node["Spec"]["Availability"]
    if state != "ready":
        return str(state)
    return {"active": "", "drain": "drained", "pause": "paused"}[availability]


def _hostname(node: Node) -> str:
    return str((node.get("Description") or {}).get("Hostname") or node["ID"])


def _traits(node: Node) -> str:
    """Say what a constraint may ask for."""
    labels = sorted((node["Spec"].get("Labels") or {}).items())
    return ", ".join([node["Spec"]["Role"], *(f"{key}={value}" for key, value in labels)])
