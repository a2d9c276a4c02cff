"""Get an update going again that Swarm itself would leave unfinished for ever."""

import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import docker
import requests
from docker.errors import DockerException

from stack import engine
from stack.progress import DISMISSED, Task, place
from stack.swarm import BEGUN_ANEW, STACK

INTERVAL = 5.0  # seconds from one look to the next
# A task that got so far and no further, when its node went down, stays there in Swarm's memory.
NOT_YET_RUNNING = {"new", "pending", "assigned", "accepted", "preparing", "ready", "starting"}
# In these, Swarm takes a service's tasks for what they should be.
AT_REST = {"", "completed"}
Groups = frozenset[frozenset[str]]
NO_ANSWER = (DockerException, requests.RequestException)


@dataclass(frozen=True)
class Suspicion:
    """Why an update seems to be stuck, and which tasks, each alone or together, show it."""

    cause: str
    shown_by: Groups

    def confirms(self, earlier: "Suspicion | None") -> bool:
        """Tell whether a look that was taken before showed some of the same."""
        return earlier is not None and not self.shown_by.isdisjoint(earlier.shown_by)


class Stalls:
    """Has Swarm begin anew with an update that it left unfinished; any change has it do so."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._looked = time.monotonic()
        self._suspected: dict[str, Suspicion] = {}

    def end(self, services: Iterable[str]) -> dict[str, str]:
        """Look from time to time how updates stand; return why which of them began anew.

        What Swarm is about to put right itself is gone at the next look.
        """
        if time.monotonic() - self._looked < INTERVAL:
            return {}
        self._looked = time.monotonic()
        before, self._suspected = self._suspected, self._look(services)
        return {name: found.cause for name, found in self._suspected.items()
                if found.confirms(before.get(name)) and self._begin_anew(name)}

    def _look(self, services: Iterable[str]) -> dict[str, "Suspicion"]:
        """Return why which of these services would stay as they are."""
        found = {}
        with suppress(*NO_ANSWER):
            down = {node["ID"] for node in self._client.api.nodes()
                    if node["Status"]["State"] == "down"}
            for name in services:
                service = self._client.api.inspect_service(f"{STACK}_{name}")
                tasks = self._client.api.tasks(filters={"service": service["ID"]})
                if lost := given_up(service, tasks, down):
                    found[name] = Suspicion("waited for a task on a node that went down", lost)
                elif pairs := doubled(service, tasks):
                    found[name] = Suspicion("kept two tasks where one is wanted", pairs)
        return found

    def _begin_anew(self, name: str) -> bool:
        """Change a label of the service; tell whether that was possible."""
        with suppress(*NO_ANSWER):
            service = self._client.api.inspect_service(f"{STACK}_{name}")
            spec = service["Spec"]
            engine.redefine(self._client, f"services/{service['ID']}", {**service, "Spec": {
                **spec, "Labels": {**spec.get("Labels", {}), BEGUN_ANEW: f"{time.time():.0f}"}}})
            return True
        return False


def given_up(service: dict[str, Any], tasks: list[Task], down: set[str]) -> Groups:
    """Return an update's tasks that were given up on a node that is down, before they ran.

    Swarm's updater waits for each new task until it runs or has failed. Of such a one it
    hears neither, though another has long taken its place (seen with Docker 26.1).
    """
    update = service.get("UpdateStatus") or {}
    return frozenset(
        frozenset({task["ID"]}) for task in tasks if update.get("State") == "updating"
        and task.get("NodeID") in down and task["DesiredState"] in DISMISSED
        and task["Status"]["State"] in NOT_YET_RUNNING
        # Of an update that has begun since, it is none.
        and datetime.fromisoformat(task["CreatedAt"]) >= datetime.fromisoformat(
            update["StartedAt"]))


def doubled(service: dict[str, Any], tasks: list[Task]) -> Groups:
    """Return the tasks that share a place though no update is under way.

    An old task that fails while its successor starts gets one more successor. Swarm ends
    one of the two when the update has completed, but not if it still takes that update for
    under way, which a moment decides (swarmkit's manager/orchestrator/update; seen with
    Docker 26.1).
    """
    if (service.get("UpdateStatus") or {}).get("State", "") not in AT_REST:
        return frozenset()
    places = defaultdict(set)
    for task in tasks:
        if task["DesiredState"] == task["Status"]["State"] == "running":
            places[place(task)].add(task["ID"])
    return frozenset(frozenset(ids) for ids in places.values() if len(ids) > 1)
