"""Find the services that Swarm could never place: their tasks would stay pending forever."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from stack.swarm.nodes import Node
from stack.swarm.placement.constraint import Constraint
from stack.swarm.placement.demand import Definition, Demand, constraints, fits
from stack.swarm.placement.nodes import Nodes, traits, why_unusable
from stack.swarm.placement.packing import by_choice, packs
from stack.swarm.placement.resources import Held, Resources
from stack.swarm.placement.running import Committed, find_running
from stack.swarm.stackfile import Stack

__all__ = ["Committed", "Held", "Resources", "complaints", "find_running"]


def complaints(stack: Stack, nodes: Sequence[Node], running: Committed, *,
               migrates: bool = True) -> list[str]:
    """Return a line for each reason why a stack could not run, or never be updated, there.

    Unless `migrates` is false, the migration's job must also fit beside the running tasks.

    A service that could be placed in some way gets no complaint. That doesn't promise that
    Swarm will place it: Swarm spreads tasks without looking ahead, and may get stuck where
    another order would succeed. A paused node counts as one without tasks: a task that
    runs there can't be replaced there.
    """
    known = Nodes.read(nodes, running.others)
    lines = [line for name, service in stack.services.items()
             if (line := _misplaced(name, service, known))]
    demands = [demand for name, service in stack.services.items()
               if (demand := Demand.read(name, service, known.usable)).tasks and demand.nodes]
    lines += [line for demand in demands if (line := _alone(demand, known))]
    if lines := lines or _same_ports(demands, known):
        return lines
    job = _migration(stack, demands, known, running) if migrates else ""
    return _together(demands, known) + [job] * bool(job)


def _misplaced(name: str, service: Definition, nodes: Nodes) -> str:
    """Say that no node that takes tasks fits a service, or return ""."""
    wanted = constraints(service)
    for text in wanted:
        if Constraint.read(text) is None:
            return f"{name}: Swarm doesn't understand the constraint {text!r}"
    deploy = service.get("deploy") or {}
    idle = deploy.get("mode") != "global" and deploy.get("replicas") == 0
    if idle or any(fits(service, node) for node in nodes.usable):
        return ""
    line = f"{name}: no node that takes tasks has {' and '.join(wanted)}" if wanted \
        else f"{name}: no node takes tasks"
    if fitting := [node.id for node in nodes.all if fits(service, node)]:
        return f"{line}; it would fit {nodes.name(fitting, why_unusable)}"
    return f"{line}; there is {nodes.name((node.id for node in nodes.all), traits)}"


def _alone(demand: Demand, nodes: Nodes) -> str:
    """Say why a service couldn't be placed even if it were the only one, or return ""."""
    return _too_large(demand, nodes) or _too_many(demand, nodes) or _no_port(demand, nodes)


def _too_large(demand: Demand, nodes: Nodes) -> str:
    small = [node for node in demand.nodes if not nodes.rooms[node].free // demand.each]
    if not small or not demand.everywhere and len(small) < len(demand.nodes):
        return ""
    return (f"{demand.name}: a task reserves {demand.each}, which is too much for "
            f"{nodes.name_room(small)}")


def _too_many(demand: Demand, nodes: Nodes) -> str:
    # Swarm counts the old task until the new one runs.
    if demand.everywhere or demand.during_update <= demand.most * len(demand.nodes):
        return ""
    return (f"{demand.name}: {demand}, at most {demand.most} per node, but the nodes "
            f"that fit are: {nodes.name(demand.nodes, traits)}")


def _no_port(demand: Demand, nodes: Nodes) -> str:
    ports = " and ".join(sorted(demand.ports))
    if ports and demand.everywhere and demand.starts_first:
        return (f"{demand.name}: an update starts the new task first, where the old one holds "
                f"{ports}: it would wait forever")
    free = [node for node in demand.nodes if not demand.ports & nodes.rooms[node].ports]
    if not ports or demand.during_update <= len(free):
        return ""
    return (f"{demand.name}: {demand}, each with {ports} of a node to itself, but the "
            f"nodes that fit and have that free are: {nodes.name(free, traits)}")


def _same_ports(demands: Sequence[Demand], nodes: Nodes) -> list[str]:
    """Say which services need the same port of the same node."""
    return [f"{one.name} and {two.name}: both need port {' and '.join(sorted(shared))} of a node "
            "to themselves, and only these nodes fit: "
            f"{nodes.name({*one.nodes, *two.nodes}, traits)}"
            for one, two in combinations(demands, 2) if (shared := one.ports & two.ports)
            and not packs(nodes.rooms, [replace(each, each=Resources()) for each in (one, two)])]


def _together(demands: Sequence[Demand], nodes: Nodes) -> list[str]:
    """Say which service doesn't fit beside those with less choice, or has no room to update."""
    ordered = by_choice(demands)
    for place, demand in enumerate(ordered):
        if not packs(nodes.rooms, ordered[:place + 1]):
            return [f"{demand.name}: {replace(demand, starts_first=False)} of {demand.each} each "
                    f"don't all fit{_beside(ordered[:place])} on {nodes.name_room(demand.nodes)}"]
    return [f"{demand.name}: an update starts a new task of {demand.each} first, and it "
            f"doesn't fit beside the running tasks on {nodes.name_room(demand.nodes)}"
            for demand in ordered if demand.starts_first
            and not all(packs(nodes.rooms, wanted) for wanted in _updates(ordered, demand))]


def _beside(demands: Sequence[Demand]) -> str:
    return " beside " + ", ".join(demand.name for demand in demands) if demands else ""


def _updates(demands: Sequence[Demand], changing: Demand) -> Iterator[list[Demand]]:
    """Yield the demands that must fit when a service starts a new task: on each node, or any.

    Services update one at a time: the next new task may wait for this service's old one.
    """
    if changing.everywhere:
        for node in changing.nodes:
            yield [*demands, replace(changing, tasks=1, nodes=(node,))]
    else:
        yield [replace(demand, tasks=demand.tasks + (demand is changing)) for demand in demands]


def _migration(stack: Stack, demands: Sequence[Demand], nodes: Nodes, running: Committed) -> str:
    """Say that the migration's job doesn't fit, or return "".

    Running tasks stay where they are. Before the first release there are none, and the
    database is started for the job.
    """
    rooms = {node: room.without(running.own.get(node, Held()))
             for node, room in nodes.rooms.items()}
    job = replace(Demand.read("migrate", stack.migrate, nodes.usable), tasks=1,
                  ports=frozenset())
    first = [demand for demand in demands
             if demand.name == "postgres" and demand.name not in running.services]
    if packs(rooms, [*first, job]):
        return ""
    return (f"migrate: the job reserves {job.each}, which doesn't fit{_beside(first)} into what "
            f"is left of {nodes.name_room(job.nodes, rooms)}")
