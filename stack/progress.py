"""Judge how far a service is on its way to what is wanted of it, from Swarm's own state."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import docker
from docker.errors import NotFound

from stack.swarm import STACK

# Swarm's own words for an update that did not arrive.
BROKEN_UPDATES = {"paused", "rollback_started", "rollback_paused", "rollback_completed"}
# Tasks that ended by themselves, rather than being told to: a service never completes.
BROKEN_TASKS = {"failed", "rejected", "orphaned", "complete"}
# So many of them within so long are a loop; fewer may have been a reboot.
LOOP = 3
LOOP_TIME = timedelta(minutes=2)
Task = dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """One service's way to what is wanted of it.

    It is `full` when all its tasks, and no others, run as wanted, and `settled` when
    Swarm has also watched them for as long as it should. `broken` says why it can't
    arrive any more; `task` is the one to blame.
    """

    name: str
    running: int
    wanted: int
    ids: frozenset[str] = frozenset()
    full: bool = False
    settled: bool = False
    broken: str = ""
    task: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.running}/{self.wanted}"


def progress(client: docker.DockerClient, name: str) -> Progress:
    """Look at one service of the stack, as Swarm has it now."""
    service = client.api.inspect_service(f"{STACK}_{name}")
    tasks = client.api.tasks(filters={"service": service["ID"]})
    return judge(client, name, service, tasks, _wanted(client, service))


def judge(client: docker.DockerClient, name: str, service: dict[str, Any], tasks: list[Task],
          wanted: int) -> Progress:
    """Weigh a service and its tasks, as the API gives them, against the tasks it should have."""
    template = _comparable(service["Spec"]["TaskTemplate"])
    current = [task for task in tasks if _comparable(task["Spec"]) == template]
    running = frozenset(task["ID"] for task in tasks if task["DesiredState"] == "running"
                        and task["Status"]["State"] == "running")
    up_to_date = running & {task["ID"] for task in current}
    update = (service.get("UpdateStatus") or {}).get("State", "")
    full = len(up_to_date) == len(running) == wanted
    settled = full and update in {"", "completed"}
    broken, culprit = "", _newest(current)
    if update in BROKEN_UPDATES:
        culprit = _blamed(service, tasks) or culprit
        broken = f"{cause_of(client, culprit)} (Swarm's update: {update.replace('_', ' ')})"
    elif not settled and len(loop := _loop(current)) >= LOOP:
        culprit = loop[-1]
        broken = f"{len(loop)} tasks in a row ended: {cause_of(client, culprit)}"
    return Progress(name, len(up_to_date), wanted, running, full, settled, broken,
                    culprit["ID"] if culprit else "")


def cause_of(client: docker.DockerClient, task: Task | None) -> str:
    """Say why a task ended: Swarm's reason, or what its health check said last.

    A task that is stopped for being unhealthy may end well, so that Swarm has no
    error to tell.
    """
    if task is None:
        return "no task of it was started"
    status = task["Status"]
    return _unhealthy(client, task) or str(status.get("Err") or status.get("Message", ""))


def _unhealthy(client: docker.DockerClient, task: Task) -> str:
    """Return what the health check said last, if it failed and the container is here."""
    container = (task["Status"].get("ContainerStatus") or {}).get("ContainerID")
    # A task that was rejected never had one.
    if not container:
        return ""
    try:
        health = client.api.inspect_container(container)["State"].get("Health", {})
    except NotFound:
        return ""
    if health.get("Status") != "unhealthy" or not health.get("Log"):
        return ""
    return f"unhealthy: {health['Log'][-1]['Output'].strip() or 'its health check failed'}"


def _wanted(client: docker.DockerClient, service: dict[str, Any]) -> int:
    """Return how many tasks a service should have; a global one has one on each fitting node."""
    mode = service["Spec"]["Mode"]
    if "Replicated" in mode:
        return int(mode["Replicated"]["Replicas"])
    status = client.api.get(f"{client.api.base_url}/v{client.api.api_version}/services",
                            params={"status": "true",
                                    "filters": f'{{"id": ["{service["ID"]}"]}}'}).json()
    return max(1, int(status[0]["ServiceStatus"]["DesiredTasks"]))


def _blamed(service: dict[str, Any], tasks: list[Task]) -> Task | None:
    """Return the task that Swarm gives as the reason for giving an update up.

    Its definition isn't the service's any more, once Swarm has gone back.
    """
    named = re.search(r"task (\w{25})", service["UpdateStatus"].get("Message", ""))
    return next((task for task in tasks if named and task["ID"] == named[1]), None)


def _loop(current: list[Task]) -> list[Task]:
    """Return the tasks that ended by themselves shortly before the newest was made."""
    newest = _newest(current)
    if newest is None:
        return []
    since = _time(newest["CreatedAt"]) - LOOP_TIME
    broken = [task for task in current if task["Status"]["State"] in BROKEN_TASKS
              and _time(task["Status"]["Timestamp"]) > since]
    return sorted(broken, key=lambda task: _time(task["Status"]["Timestamp"]))


def _newest(tasks: list[Task]) -> Task | None:
    return max(tasks, key=lambda task: _time(task["CreatedAt"]), default=None)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _comparable(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a task's definition without what Swarm fills in for a task.

    And without its placement: a task whose node still fits stays when only that changes.
    """
    return {key: value for key, value in spec.items()
            if key not in {"Networks", "Runtime", "Placement"}}
