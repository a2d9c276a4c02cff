"""Find the services that Swarm could never place: it would leave their tasks pending for ever."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from stack.definition import Stack
from stack.placement.constraint import Constraint, Node
from stack.placement.demand import Demand, Service, constraints, fits
from stack.placement.nodes import Nodes, traits, why_unusable
from stack.placement.packing import by_choice, packs
from stack.placement.resources import Held, Resources
from stack.placement.running import Running, find_running

__all__ = ["Held", "Resources", "Running", "complaints", "find_running"]


def complaints(stack: Stack, nodes: Sequence[Node], running: Running, *,
               migrates: bool = True) -> list[str]:
    """Return a line for each reason why a stack could not run, or never be updated, there.

    `nodes` are what the Engine API's list of nodes gives. Unless `migrates` is false, room
    is looked for as well for the migration's job, beside what is running.

    Whatever could be placed in some way gets no complaint. That is less than a promise
    that it will be: Swarm spreads tasks without looking ahead, and may end up in a corner
    that another order avoids. A paused node counts as one without tasks: nothing that
    runs there can be replaced there.
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


def _misplaced(name: str, service: Service, nodes: Nodes) -> str:
    """Say that none of the nodes that take tasks fits a service, or return ""."""
    wanted = constraints(service)
    for text in wanted:
        if Constraint.read(text) is None:
            return f"{name}: the constraint {text!r} is none that Swarm understands"
    deploy = service.get("deploy") or {}
    idle = deploy.get("mode") != "global" and deploy.get("replicas") == 0
    if idle or any(fits(service, node) for node in nodes.usable):
        return ""
    line = f"{name}: no node that takes tasks has {' and '.join(wanted)}" if wanted \
        else f"{name}: no node takes tasks"
    if fitting := [node["ID"] for node in nodes.all if fits(service, node)]:
        return f"{line}; it would fit {nodes.name(fitting, why_unusable)}"
    return f"{line}; there is {nodes.name((node['ID'] for node in nodes.all), traits)}"


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
    return (f"{demand.name}: {demand}, with at most {demand.most} on a node, but all that "
            f"fits is {nodes.name(demand.nodes, traits)}")


def _no_port(demand: Demand, nodes: Nodes) -> str:
    ports = " and ".join(sorted(demand.ports))
    if ports and demand.everywhere and demand.starts_first:
        return (f"{demand.name}: an update starts the new task first, where the old one holds "
                f"{ports}: it would wait for ever")
    free = [node for node in demand.nodes if not demand.ports & nodes.rooms[node].ports]
    if not ports or demand.during_update <= len(free):
        return ""
    return (f"{demand.name}: {demand}, each with {ports} of a node to itself, but all that "
            f"fits and has that free is {nodes.name(free, traits)}")


def _same_ports(demands: Sequence[Demand], nodes: Nodes) -> list[str]:
    """Say which services are in each other's way by a port."""
    return [f"{one.name} and {two.name}: both want {' and '.join(sorted(shared))} of a node to "
            f"themselves, but all that fits is {nodes.name({*one.nodes, *two.nodes}, traits)}"
            for one, two in combinations(demands, 2) if (shared := one.ports & two.ports)
            and not packs(nodes.rooms, [replace(each, each=Resources()) for each in (one, two)])]


def _together(demands: Sequence[Demand], nodes: Nodes) -> list[str]:
    """Say which service has no room beside those with less choice, or else for its updates."""
    ordered = by_choice(demands)
    for place, demand in enumerate(ordered):
        if not packs(nodes.rooms, ordered[:place + 1]):
            return [f"{demand.name}: {replace(demand, starts_first=False)} of {demand.each} each "
                    f"don't all fit{_beside(ordered[:place])} on {nodes.name_room(demand.nodes)}"]
    return [f"{demand.name}: an update starts a new task of {demand.each} first, and it "
            f"doesn't fit beside all that run on {nodes.name_room(demand.nodes)}"
            for demand in ordered if demand.starts_first
            and not all(packs(nodes.rooms, wanted) for wanted in _updates(ordered, demand))]


def _beside(demands: Sequence[Demand]) -> str:
    return " beside " + ", ".join(demand.name for demand in demands) if demands else ""


def _updates(demands: Sequence[Demand], changing: Demand) -> Iterator[list[Demand]]:
    """Yield all that has to fit when one service starts a new task: on each node in turn, or any.

    One service at a time: another's new task may wait until this one's old task has gone.
    """
    if changing.everywhere:
        for node in changing.nodes:
            yield [*demands, replace(changing, tasks=1, nodes=(node,))]
    else:
        yield [replace(demand, tasks=demand.tasks + (demand is changing)) for demand in demands]


def _migration(stack: Stack, demands: Sequence[Demand], nodes: Nodes, running: Running) -> str:
    """Say that the migration's job finds no room, or return "".

    What runs stays where it is meanwhile. Before the first release that is nothing, and
    the database is started for the job.
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
