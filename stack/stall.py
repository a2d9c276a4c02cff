"""Get an update going again that waits for a task on a node that is lost."""

import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

import docker
import requests
from docker.errors import DockerException

from stack import engine
from stack.progress import DISMISSED
from stack.swarm import STACK

INTERVAL = 5.0  # seconds from one look at the nodes to the next
# Changed for its own sake: as a label of the service, it restarts no task.
LABEL = "tally.begun-again"
# A task that got so far and no further, when its node went down, stays there in Swarm's memory.
NOT_YET_RUNNING = {"new", "pending", "assigned", "accepted", "preparing", "ready", "starting"}


class Stalls:
    """Has Swarm begin anew with an update that would never end.

    Swarm's updater waits for each new task until it runs or has failed. Of one that was on
    its way to a node that then went down it hears neither, though another has long taken
    its place (seen with Docker 26.1). Any change of the service has it begin anew.
    """

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._looked = time.monotonic()

    def end(self, services: Iterable[str]) -> list[str]:
        """Look from time to time whether an update waits so; return those that began anew."""
        if time.monotonic() - self._looked < INTERVAL:
            return []
        self._looked = time.monotonic()
        with suppress(DockerException, requests.RequestException):
            down = {node["ID"] for node in self._client.api.nodes()
                    if node["Status"]["State"] == "down"}
            return [name for name in services if down and self._begin_anew(name, down)]
        return []

    def _begin_anew(self, name: str, down: set[str]) -> bool:
        service = self._client.api.inspect_service(f"{STACK}_{name}")
        tasks = self._client.api.tasks(filters={"service": service["ID"]})
        if not waits_in_vain(service, tasks, down):
            return False
        spec = service["Spec"]
        engine.redefine(self._client, f"services/{service['ID']}", {**service, "Spec": {
            **spec, "Labels": {**spec.get("Labels", {}), LABEL: f"{time.time():.0f}"}}})
        return True


def waits_in_vain(service: dict[str, Any], tasks: list[dict[str, Any]], down: set[str]) -> bool:
    """Tell whether an update's task was given up on a node that is down, before it ran."""
    update = service.get("UpdateStatus") or {}
    return update.get("State") == "updating" and any(
        task.get("NodeID") in down and task["DesiredState"] in DISMISSED
        and task["Status"]["State"] in NOT_YET_RUNNING
        # Of an update that has begun since, it is none.
        and datetime.fromisoformat(task["CreatedAt"]) >= datetime.fromisoformat(
            update["StartedAt"]) for task in tasks)
