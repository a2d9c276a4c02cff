"""Look for a way to give every task a node."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from stack.placement.demand import Demand
from stack.placement.resources import Held, Resources, Room

Rooms = Mapping[str, Room]  # by the node's id
# One step of the search: what is still free, and who still wants something.
Way = tuple[Rooms, tuple[Demand, ...]]
# Steps that are taken before the answer is "it may be possible".
STEPS = 2000


def packs(rooms: Rooms, demands: Iterable[Demand]) -> bool:
    """Tell whether there is a way; a no is certain.

    It begins with the services that have the least choice and then the largest, with as
    many tasks as possible on a node, and takes back what leads nowhere. After many steps
    without an answer it says yes.
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
    """Tell whether each service would find room without the others, and all have enough in sum."""
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
