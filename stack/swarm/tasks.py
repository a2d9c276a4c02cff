"""Read the Swarm's tasks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stack.engine.engine import Engine
from stack.engine.objects import Filters

# States of tasks that ended unasked: a service never completes.
BROKEN = {"failed", "rejected", "orphaned", "complete"}
# Desired states of tasks that Swarm is ending.
DISMISSED = {"shutdown", "remove"}
# States in which a task has ended.
ENDED = BROKEN | DISMISSED


@dataclass(frozen=True)
class Task:
    """A task of the Swarm.

    `state` and `desired_state` are Swarm's own words, and so are `error` and `message`.
    `service`, `node` and `container` are ids, "" where there is none: a container on an
    attachable network is a task without a service. `slot` is 0 unless the service is replicated.
    `definition` is the service's template at the time when the task was created.
    """

    id: str
    service: str
    node: str
    slot: int
    state: str
    desired_state: str
    error: str
    message: str
    container: str
    created: datetime
    changed: datetime
    definition: Mapping[str, Any] = field(hash=False)

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Task":
        """Read a task as the Engine API gives it."""
        status = found["Status"]
        return cls(found["ID"], found.get("ServiceID", ""), found.get("NodeID", ""),
                   int(found.get("Slot", 0)), status["State"], found["DesiredState"],
                   status.get("Err", ""), status.get("Message", ""),
                   (status.get("ContainerStatus") or {}).get("ContainerID", ""),
                   datetime.fromisoformat(found["CreatedAt"]),
                   datetime.fromisoformat(status["Timestamp"]), found.get("Spec") or {})

    @property
    def image(self) -> str:
        return str(self.definition["ContainerSpec"]["Image"])

    @property
    def place(self) -> tuple[int, str]:
        """Its slot, or its node; its replacement has the same.

        A replicated service numbers its slots; a global one has a task on each node.
        """
        return self.slot, "" if self.slot else self.node

    @property
    def runs(self) -> bool:
        """Whether it runs and is to go on."""
        return self.state == self.desired_state == "running"

    @property
    def broken(self) -> bool:
        """Whether it ended unasked."""
        return self.state in BROKEN

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def dismissed(self) -> bool:
        """Whether Swarm is ending it, or has ended it."""
        return self.desired_state in DISMISSED

    @property
    def reason(self) -> str:
        """Why it is in its state, in Swarm's words."""
        return self.error or self.message


def find_tasks(engine: Engine, filters: Filters | None = None) -> list[Task]:
    """Return the tasks that match the API's filters, or all."""
    return [Task.read(found) for found in engine.tasks.list(filters)]


def inspect(engine: Engine, task_id: str) -> Task:
    """Return one task."""
    return Task.read(engine.tasks.inspect(task_id))
