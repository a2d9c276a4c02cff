"""Restart updates that Swarm would leave stuck forever."""

import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from stack.engine.engine import Engine
from stack.engine.failures import EngineError
from stack.errors import OperatorError
from stack.swarm import changes, services
from stack.swarm.names import RESTARTED_AT, STACK
from stack.swarm.nodes import all_nodes
from stack.swarm.services import Service
from stack.swarm.tasks import Task, find_tasks

INTERVAL = 5.0  # seconds from one look to the next
# Swarm keeps a task in one of these states if its node went down before the task ran.
NOT_YET_RUNNING = {"new", "pending", "assigned", "accepted", "preparing", "ready", "starting"}
Groups = frozenset[frozenset[str]]


@dataclass(frozen=True)
class Suspicion:
    """Why an update seems stuck, and the groups of tasks that show it."""

    cause: str
    shown_by: Groups

    def confirms(self, earlier: "Suspicion | None") -> bool:
        """Return whether an earlier look showed some of the same tasks."""
        return earlier is not None and not self.shown_by.isdisjoint(earlier.shown_by)


class Stalls:
    """Restarts stuck updates; any change of the service does that."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._looked = time.monotonic()
        self._suspected: dict[str, Suspicion] = {}

    def end(self, names: Iterable[str]) -> dict[str, str]:
        """Check updates at intervals; return the cause of each restarted one, by service.

        A problem must show twice, so that Swarm can correct it by itself.
        """
        if time.monotonic() - self._looked < INTERVAL:
            return {}
        self._looked = time.monotonic()
        before, self._suspected = self._suspected, self._look(names)
        return {name: found.cause for name, found in self._suspected.items()
                if found.confirms(before.get(name)) and self._restart(name)}

    def _look(self, names: Iterable[str]) -> dict[str, "Suspicion"]:
        """Return the services that seem stuck, and why."""
        found = {}
        with suppress(EngineError):
            down = {node.id for node in all_nodes(self._engine) if node.state == "down"}
            for name in names:
                service = services.inspect(self._engine, f"{STACK}_{name}")
                tasks = find_tasks(self._engine, {"service": service.id})
                if lost := given_up(service, tasks, down):
                    found[name] = Suspicion("waited for a task on a node that went down", lost)
                elif pairs := doubled(service, tasks):
                    found[name] = Suspicion("kept two tasks where one is wanted", pairs)
        return found

    def _restart(self, name: str) -> bool:
        """Restart the update by changing a label; return whether that succeeded."""
        mark = {RESTARTED_AT: f"{time.time():.0f}"}
        with suppress(OperatorError):
            return changes.change(self._engine.services, f"{STACK}_{name}", name, lambda spec: {
                **spec, "Labels": {**spec.get("Labels", {}), **mark}})
        return False


def given_up(service: Service, tasks: list[Task], down: set[str]) -> Groups:
    """Return an update's tasks that were abandoned on a lost node before they ran.

    Swarm's updater waits for each new task until it runs or has failed. It never
    hears of such a task again, even after its replacement runs (seen with Docker 26.1).
    """
    return frozenset(
        frozenset({task.id}) for task in tasks if service.update_state == "updating"
        and task.node in down and task.dismissed and task.state in NOT_YET_RUNNING
        # Tasks made before this update began aren't part of it.
        and task.created >= service.updated)


def doubled(service: Service, tasks: list[Task]) -> Groups:
    """Return the tasks that share a slot or node although no update is in progress.

    An old task that fails while its successor starts gets a second successor. Swarm ends
    one of the two when the update completes, but not if it still considers the update
    in progress, which is a race (swarmkit's manager/orchestrator/update; seen with
    Docker 26.1).
    """
    if not service.at_rest:
        return frozenset()
    places = defaultdict(set)
    for task in tasks:
        if task.runs:
            places[task.place].add(task.id)
    return frozenset(frozenset(ids) for ids in places.values() if len(ids) > 1)
