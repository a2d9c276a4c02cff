"""Search for a placement of every task."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from stack.swarm.placement.demand import Demand
from stack.swarm.placement.resources import Held, Resources, Room

Rooms = Mapping[str, Room]  # by the node's id
# One step of the search: the free resources, and the demands still unplaced.
Way = tuple[Rooms, tuple[Demand, ...]]
# Steps of the search before it gives up and answers "possible".
STEPS = 2000


def packs(rooms: Rooms, demands: Iterable[Demand]) -> bool:
    """Return whether all demands fit; only False is certain.

    Backtracks: starts with the services that have the least choice, then the largest, with
    as many tasks as possible on a node. Returns True if STEPS bring no answer.
    """
    untried = [iter([(rooms, tuple(by_choice(demands)))])]
    for _ in range(STEPS):
        while untried and (way := next(untried[-1], None)) is None:
            untried.pop()
        if way is None:
            return False
        if not way[1]:
            return True
        if _may_lead_on(*way):
            untried.append(_next(*way))
    return True


def by_choice(demands: Iterable[Demand]) -> list[Demand]:
    """Put those first that have the fewest nodes to choose from, then the largest."""
    return sorted(demands, key=lambda demand: (
        not demand.everywhere, len(demand.nodes), -demand.each.memory, -demand.each.nano_cpus))


def holds(room: Room, demand: Demand) -> int:
    """Return how many tasks of a service there is room for.

    As Swarm does it: manager/scheduler/filter.go in moby/swarmkit.
    """
    if demand.ports & room.ports:
        return 0
    return min(1 if demand.ports else demand.most, room.free // demand.each)


def _may_lead_on(rooms: Rooms, demands: tuple[Demand, ...]) -> bool:
    """Return whether each service fits without the others, and all have enough room in sum."""
    nodes = {node for demand in demands for node in demand.nodes}
    free = sum((rooms[node].free for node in nodes), Resources())
    wanted = sum((demand.each * demand.tasks for demand in demands), Resources())
    return free // wanted > 0 and all(
        sum(holds(rooms[node], demand) for node in demand.nodes) >= demand.tasks
        for demand in demands)


def _next(rooms: Rooms, demands: tuple[Demand, ...]) -> Iterator[Way]:
    """Yield the ways to use the first node of the first service, the fullest first."""
    first, others = demands[0], demands[1:]
    node, *rest = first.nodes
    for count in range(min(first.tasks, holds(rooms[node], first)), -1, -1):
        taken = Held(first.each * count, first.ports if count else frozenset())
        left = replace(first, tasks=first.tasks - count, nodes=tuple(rest))
        yield ({**rooms, node: rooms[node].without(taken)},
               (left, *others) if left.tasks else others)
