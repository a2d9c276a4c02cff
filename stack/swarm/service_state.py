"""Judge how far a service has converged, from Swarm's own state."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from stack.engine.engine import Engine
from stack.engine.failures import Missing
from stack.swarm.names import OF_STACK, STACK
from stack.swarm.services import Service, services
from stack.swarm.tasks import BROKEN, Task, find_tasks

# Swarm's states of a failed update.
BROKEN_UPDATES = {"paused", "rollback_started", "rollback_paused", "rollback_completed"}
# This many failures within this time are a crash loop; fewer may be a reboot.
LOOP = 3
LOOP_TIME = timedelta(minutes=2)
# Docker's default number of failed health checks before a container is unhealthy.
RETRIES = 3


@dataclass(frozen=True)
class TaskLine:
    """What the operator sees of one task.

    `node` is an id, or "" before Swarm has chosen one. `state` is Swarm's own word, or
    "stopping". `new` is true for tasks with the service's current definition.
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
        return self.state in BROKEN


@dataclass(frozen=True)
class Progress:
    """How far a service has converged.

    It is `full` when exactly the wanted tasks run, and `settled` when Swarm has also
    monitored them long enough. `broken` says why it can no longer converge; `task` is the
    culprit. `lines` are the tasks that run, are starting, or were the last in their place
    to fail. `lives` maps each task that failed soon after its start to its lifetime in
    seconds.
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


def progress(engine: Engine, names: Iterable[str]) -> list[Progress]:
    """Return the current progress of services of the stack, even of a missing one.

    Two requests serve all of them: each costs a round trip to the Swarm.
    """
    found = {service.name: service for service in services(engine)}
    tasks = defaultdict(list)
    for task in find_tasks(engine, OF_STACK):
        tasks[task.service].append(task)
    return [judge(engine, name, service, tasks[service.id])
            if (service := found.get(f"{STACK}_{name}"))
            else Progress(name, 0, 0, broken="the service is gone") for name in names]


def judge(engine: Engine, name: str, service: Service,
          tasks: list[Task]) -> Progress:
    """Judge a service and its tasks."""
    wanted = _wanted(service, tasks)
    template = _comparable(service.template)
    current = [task for task in tasks if _comparable(task.definition) == template]
    running = frozenset(task.id for task in tasks if task.runs)
    up_to_date = running & {task.id for task in current}
    full = len(up_to_date) == len(running) == wanted
    settled = full and service.at_rest
    broken, culprit, loop = "", _newest(current), _loop(service, current)
    if service.update_state in BROKEN_UPDATES:
        culprit = _blamed(service, tasks) or culprit
        broken = (f"{cause_of(engine, culprit)} "
                  f"(Swarm's update: {service.update_state.replace('_', ' ')})")
    elif not settled and len(loop) >= LOOP:
        culprit = loop[-1]
        broken = f"{len(loop)} tasks in a row ended: {cause_of(engine, culprit)}"
    return Progress(name, len(up_to_date), wanted, running, full, settled, broken,
                    culprit.id if culprit else "", _lines(name, tasks, current), _lives(loop))


def _lines(name: str, tasks: list[Task], current: list[Task]) -> tuple[TaskLine, ...]:
    """Return the lines of the tasks worth showing, ordered by place."""
    ordered = sorted(tasks, key=lambda task: (task.place, task.created))
    last_broken = {task.place: task.id for task in ordered if task.broken}
    new = {task.id for task in current}
    return tuple(_line(name, task, task.id in new) for task in ordered
                 if _is_alive(task) or task.id == last_broken.get(task.place))


def _is_alive(task: Task) -> bool:
    """Return whether a task runs or is starting.

    A task that Swarm ended before it ran may stay "pending" forever.
    """
    return task.state == "running" or not (task.ended or task.dismissed)


def _line(name: str, task: Task, new: bool) -> TaskLine:
    state = "stopping" if task.state == "running" and task.dismissed else task.state
    # A starting task's message only repeats its state.
    said = task.reason if task.broken else task.error
    return TaskLine(name, task.node, _tag(task.image), state, task.created, task.changed,
                    " ".join(said.split()), new)


def _tag(image: str) -> str:
    """Return an image's tag: its registry may have a port, and a digest may follow."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


def cause_of(engine: Engine, task: Task | None) -> str:
    """Say why a task ended: Swarm's reason, or its last health check's output.

    An unhealthy task may exit with 0 when it is stopped, so that Swarm reports no
    error.
    """
    if task is None:
        return "none of its tasks was started"
    return _unhealthy(engine, task) or task.reason


def _unhealthy(engine: Engine, task: Task) -> str:
    """Return the last health check's output, if it failed and the container is here."""
    # A rejected task never had a container.
    if not task.container:
        return ""
    try:
        found = engine.container(task.container)
    except Missing:
        return ""
    health = found["State"].get("Health", {})
    # Docker calls every ended container unhealthy.
    enough = (found["Config"].get("Healthcheck") or {}).get("Retries") or RETRIES
    if health.get("Status") != "unhealthy" or health.get("FailingStreak", 0) < enough \
            or not health.get("Log"):
        return ""
    return f"unhealthy: {health['Log'][-1]['Output'].strip() or 'its health check failed'}"


def _wanted(service: Service, tasks: list[Task]) -> int:
    """Return how many tasks a service should have; a global one has one on each fitting node."""
    if service.replicas is not None:
        return service.replicas
    # A "ready" task waits to start, for example after another failed there.
    return max(1, len({task.node for task in tasks if task.desired_state in {"running", "ready"}}))


def _blamed(service: Service, tasks: list[Task]) -> Task | None:
    """Return the task that Swarm names as the reason for a failed update.

    After Swarm's rollback its definition is no longer the service's.
    """
    named = re.search(r"task (\w{25})", service.update_message)
    return next((task for task in tasks if named and task.id == named[1]), None)


def _loop(service: Service, current: list[Task]) -> list[Task]:
    """Return the tasks that failed shortly before the newest was made.

    Only tasks made since the service's last change count: earlier failures with the same
    definition, before a rollback or at a reboot, say nothing about now.
    """
    newest = _newest(current)
    if newest is None:
        return []
    since = newest.created - LOOP_TIME
    broken = [task for task in current if task.broken and task.changed > since
              and task.created >= service.updated]
    return sorted(broken, key=lambda task: task.changed)


def _lives(ended: list[Task]) -> dict[str, float]:
    """Return each short-lived task's seconds from creation to end."""
    lives = {task.id: task.changed - task.created for task in ended}
    return {task: life.total_seconds() for task, life in lives.items() if life < LOOP_TIME}


def _newest(tasks: list[Task]) -> Task | None:
    return max(tasks, key=lambda task: task.created, default=None)


def _comparable(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's definition without what Swarm fills in.

    Placement is left out too: a task whose node still fits survives a change of it.
    """
    return {key: value for key, value in template.items()
            if key not in {"Networks", "Runtime", "Placement"}}
