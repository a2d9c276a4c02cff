"""Judge how far a service is on its way to what is wanted of it, from Swarm's own state."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import docker
from docker.errors import NotFound

from stack.swarm import OF_STACK, STACK

# Swarm's own words for an update that did not arrive.
BROKEN_UPDATES = {"paused", "rollback_started", "rollback_paused", "rollback_completed"}
# Tasks that ended by themselves, rather than being told to: a service never completes.
BROKEN_TASKS = {"failed", "rejected", "orphaned", "complete"}
# So many of them within so long are a loop; fewer may have been a reboot.
LOOP = 3
LOOP_TIME = timedelta(minutes=2)
# Docker's own number of failed health checks that end a container.
RETRIES = 3
# Tasks that Swarm has told to end.
DISMISSED = {"shutdown", "remove"}
# All in which a task runs no more.
ENDED = BROKEN_TASKS | DISMISSED
Task = dict[str, Any]


@dataclass(frozen=True)
class TaskLine:
    """What a person is told of one task.

    `node` is an id, or "" before Swarm has chosen one. `state` is Swarm's own word, or
    "stopping". `new` tells what is defined as the service is now from what it replaces.
    """

    service: str
    node: str
    tag: str
    state: str
    created: datetime
    changed: datetime
    error: str
    new: bool

    @property
    def broken(self) -> bool:
        return self.state in BROKEN_TASKS


@dataclass(frozen=True)
class Progress:
    """One service's way to what is wanted of it.

    It is `full` when all its tasks, and no others, run as wanted, and `settled` when
    Swarm has also watched them for as long as it should. `broken` says why it can't
    arrive any more; `task` is the one to blame. `lines` are those tasks that run, are on
    their way, or were the last of their place to fail. `lives` has the seconds that each
    task lived that ended by itself soon after it was made.
    """

    name: str
    running: int
    wanted: int
    ids: frozenset[str] = frozenset()
    full: bool = False
    settled: bool = False
    broken: str = ""
    task: str = ""
    lines: tuple[TaskLine, ...] = ()
    lives: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} {self.running}/{self.wanted}"


def progress(client: docker.DockerClient, names: Iterable[str]) -> list[Progress]:
    """Look at services of the stack, as Swarm has them now, also at one that is gone.

    Two requests do for all of them: each costs a round trip to the Swarm.
    """
    services = {service["Spec"]["Name"]: service
                for service in client.api.services(filters=OF_STACK)}
    tasks = defaultdict(list)
    for task in client.api.tasks(filters=OF_STACK):
        tasks[task["ServiceID"]].append(task)
    return [judge(client, name, service, tasks[service["ID"]])
            if (service := services.get(f"{STACK}_{name}"))
            else Progress(name, 0, 0, broken="it is gone") for name in names]


def judge(client: docker.DockerClient, name: str, service: dict[str, Any],
          tasks: list[Task]) -> Progress:
    """Weigh a service and its tasks, as the API gives them."""
    wanted = _wanted(service, tasks)
    template = _comparable(service["Spec"]["TaskTemplate"])
    current = [task for task in tasks if _comparable(task["Spec"]) == template]
    running = frozenset(task["ID"] for task in tasks if task["DesiredState"] == "running"
                        and task["Status"]["State"] == "running")
    up_to_date = running & {task["ID"] for task in current}
    update = (service.get("UpdateStatus") or {}).get("State", "")
    full = len(up_to_date) == len(running) == wanted
    settled = full and update in {"", "completed"}
    broken, culprit, loop = "", _newest(current), _loop(service, current)
    if update in BROKEN_UPDATES:
        culprit = _blamed(service, tasks) or culprit
        broken = f"{cause_of(client, culprit)} (Swarm's update: {update.replace('_', ' ')})"
    elif not settled and len(loop) >= LOOP:
        culprit = loop[-1]
        broken = f"{len(loop)} tasks in a row ended: {cause_of(client, culprit)}"
    return Progress(name, len(up_to_date), wanted, running, full, settled, broken,
                    culprit["ID"] if culprit else "", _lines(name, tasks, current), _lives(loop))


def _lines(name: str, tasks: list[Task], current: list[Task]) -> tuple[TaskLine, ...]:
    """Return the lines of the tasks that matter to somebody who waits, place by place."""
    ordered = sorted(tasks, key=lambda task: (place(task), _time(task["CreatedAt"])))
    last_broken = {place(task): task["ID"] for task in ordered
                   if task["Status"]["State"] in BROKEN_TASKS}
    new = {task["ID"] for task in current}
    return tuple(_line(name, task, task["ID"] in new) for task in ordered
                 if _is_alive(task) or task["ID"] == last_broken.get(place(task)))


def place(task: Task) -> tuple[int, str]:
    """Return which of a service's tasks it is, or came instead of.

    A replicated service numbers them; a global one has one on each node.
    """
    slot = int(task.get("Slot", 0))
    return slot, "" if slot else task.get("NodeID", "")


def _is_alive(task: Task) -> bool:
    """Tell whether a task runs or is on its way.

    One that was told to end before it ran may stay "pending" in Swarm's memory for ever.
    """
    state = task["Status"]["State"]
    return state == "running" or not (
        state in BROKEN_TASKS | DISMISSED or task["DesiredState"] in DISMISSED)


def _line(name: str, task: Task, new: bool) -> TaskLine:
    status = task["Status"]
    state = status["State"]
    if state == "running" and task["DesiredState"] in DISMISSED:
        state = "stopping"
    # Of a task on its way, the message only says its state in other words.
    said = status.get("Err") or (status.get("Message", "") if state in BROKEN_TASKS else "")
    return TaskLine(name, task.get("NodeID", ""), _tag(task["Spec"]["ContainerSpec"]["Image"]),
                    state, _time(task["CreatedAt"]), _time(status["Timestamp"]),
                    " ".join(said.split()), new)


def _tag(image: str) -> str:
    """Return an image's tag: its registry may have a port, and a digest may follow."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


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
        found = client.api.inspect_container(container)
    except NotFound:
        return ""
    health = found["State"].get("Health", {})
    # Docker calls every container unhealthy that has ended.
    enough = (found["Config"].get("Healthcheck") or {}).get("Retries") or RETRIES
    if health.get("Status") != "unhealthy" or health.get("FailingStreak", 0) < enough \
            or not health.get("Log"):
        return ""
    return f"unhealthy: {health['Log'][-1]['Output'].strip() or 'its health check failed'}"


def _wanted(service: dict[str, Any], tasks: list[Task]) -> int:
    """Return how many tasks a service should have; a global one has one on each fitting node."""
    mode = service["Spec"]["Mode"]
    if "Replicated" in mode:
        return int(mode["Replicated"]["Replicas"])
    # One that is "ready" waits for its start, as after another has failed there.
    return max(1, len({task.get("NodeID") for task in tasks
                       if task["DesiredState"] in {"running", "ready"}}))


def _blamed(service: dict[str, Any], tasks: list[Task]) -> Task | None:
    """Return the task that Swarm gives as the reason for giving an update up.

    Its definition isn't the service's any more, once Swarm has gone back.
    """
    named = re.search(r"task (\w{25})", service["UpdateStatus"].get("Message", ""))
    return next((task for task in tasks if named and task["ID"] == named[1]), None)


def _loop(service: dict[str, Any], current: list[Task]) -> list[Task]:
    """Return the tasks that ended by themselves shortly before the newest was made.

    And since the service has its definition: if it had the same one before, as after a
    rollback, what ended then, perhaps at a reboot, says nothing about now.
    """
    newest = _newest(current)
    if newest is None:
        return []
    # The time of the last change, until Swarm has begun with it, and without an update.
    started = (service.get("UpdateStatus") or {}).get("StartedAt") or service["UpdatedAt"]
    since, defined = _time(newest["CreatedAt"]) - LOOP_TIME, _time(started)
    broken = [task for task in current if task["Status"]["State"] in BROKEN_TASKS
              and _time(task["Status"]["Timestamp"]) > since
              and _time(task["CreatedAt"]) >= defined]
    return sorted(broken, key=lambda task: _time(task["Status"]["Timestamp"]))


def _lives(ended: list[Task]) -> dict[str, float]:
    """Return the seconds from each task's making to its end, unless it had served for long."""
    lives = {task["ID"]: _time(task["Status"]["Timestamp"]) - _time(task["CreatedAt"])
             for task in ended}
    return {task: life.total_seconds() for task, life in lives.items() if life < LOOP_TIME}


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
