"""Read tasks' logs from the engine of each machine that they ran on.

`docker service logs` isn't used: with several nodes it sometimes hangs forever
(moby/moby#41733, docker/cli#4678).
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from stack.engine import connection, failures
from stack.engine.container_logs import LogMessage
from stack.engine.engine import Engine
from stack.errors import OperatorError, Refused
from stack.swarm.fleet import Member
from stack.swarm.nodes import all_nodes
from stack.swarm.swarm import Swarm
from stack.swarm.tasks import Task, find_tasks

# Seconds until a log request times out, since other work waits for it, and until that
# engine is asked again.
TIMEOUT, PAUSE = 10, 30.0
# How many of a task's last messages are searched for new ones, and the factor by which the
# window grows if all are new.
WINDOW, WIDER = 100, 10
# RFC 3339; older versions of Docker use the machine's time zone (moby/moby#46913).
STAMP = re.compile(r"([0-9-]{10}T[0-9:]{8})(?:\.([0-9]{1,9}))?(Z|[+-][0-9:]{5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log of a task, such as app.1@anna; `time` is in ns since 1970."""

    time: int
    task: str
    text: str

    def __str__(self) -> str:
        return f"{self.task} | {self.text}"


class Reader:
    """Reads the logs of a service's tasks, each line once."""

    def __init__(self, swarm: Swarm, service: str, filters: Mapping[str, str],
                 tail: int | None = None) -> None:
        """Begin with the last `tail` messages of each task that matches the API's filters, or all.

        Later tasks are read in full. A message is a line, or a part of a long one.
        """
        self._swarm, self._service, self._filters, self._tail = swarm, service, filters, tail
        self._looked = False
        self._tasks: list[Task] = []
        self._nodes: dict[str, str] = {}
        self._members: dict[str, Member] = {}
        self._engines: dict[str, Engine] = {}
        # By node, when it may be asked again, and why not earlier.
        self._silent: dict[str, tuple[float, str]] = {}
        self._logs: dict[str, TaskLog] = {}
        # By task, why its log can't be read.
        self.unread: dict[str, str] = {}

    def read(self) -> list[Line]:
        """Return the new lines that can be read, in order of time.

        If no manager answers, reads the tasks known so far; raises OperatorError if none
        ever answered.
        """
        self.unread = {}
        self._look()
        lines = list[Line]()
        for task in self._tasks:
            name = self._name(task)
            try:
                lines += self._new(task, name)
            except OperatorError as error:
                self.unread[name] = failures.cause_of(error)
        return sorted(lines, key=lambda line: line.time)

    def _look(self) -> None:
        engine = self._swarm.engine
        try:
            self._members = self._swarm.members()
            nodes = {node.id: node.hostname or node.id[:12] for node in all_nodes(engine)}
            tasks = find_tasks(engine, self._filters)
        except OperatorError as error:
            if not self._looked:
                raise
            self.unread["new tasks"] = failures.cause_of(error)
            # Try another manager; open connections would stay with this one.
            self._swarm.machine.pass_over()
            engine.close()
            return
        self._nodes = nodes
        self._tasks = [task for task in tasks if task.container and task.node in nodes]
        for task in self._tasks:
            self._logs.setdefault(task.container, TaskLog(self._tail))
        # Later tasks are read from their beginning.
        self._looked, self._tail = True, None

    def _name(self, task: Task) -> str:
        slot = f".{task.slot}" if task.slot else ""
        return f"{self._service}{slot}@{self._nodes[task.node]}"

    def _new(self, task: Task, name: str) -> list[Line]:
        """Return a task's new lines; raises OperatorError."""
        log = self._logs[task.container]
        if log.complete:
            return []
        until, cause = self._silent.get(task.node, (0.0, ""))
        if time.monotonic() < until:
            raise Refused(cause)
        try:
            lines = log.read(self._engine(task.node), task.container, name)
        except OperatorError as error:
            # Its other tasks would time out too.
            self._silent[task.node] = (time.monotonic() + PAUSE, failures.cause_of(error))
            raise
        if log.trouble:
            self.unread[name] = log.trouble
        return lines + log.end(name) if task.ended else lines

    def _engine(self, node: str) -> Engine:
        """Return the engine of a node; raises Refused if it can't be reached."""
        member = self._members.get(node)
        if member is None or not member.machine.alive:
            raise Refused("its machine can't be reached, or isn't in the inventory")
        if node not in self._engines:
            self._engines[node] = connection.connect(member.machine, TIMEOUT)
        return self._engines[node]


class TaskLog:
    """How far the log of one container has been read.

    Timestamps don't decide what is new: a clock may have been set back.
    """

    def __init__(self, tail: int | None) -> None:
        self._tail = tail
        self._last: LogMessage | None = None
        # By stream, the incomplete last line.
        self._begun: dict[int, Part] = {}
        self.complete = False
        # Why some of it can't be read.
        self.trouble = ""

    def read(self, engine: Engine, container: str, task: str) -> list[Line]:
        """Return the new complete lines; raises OperatorError."""
        lines = []
        for message in self._fetch(engine, container):
            self._last = message
            begun = self._begun.pop(message.stream, Part(nanoseconds(message.time), b""))
            part = Part(begun.time, begun.text + message.text)
            if message.ends:
                lines.append(part.line(task))
            else:
                self._begun[message.stream] = part
        return lines

    def end(self, task: str) -> list[Line]:
        """Return the incomplete lines: nothing more is written."""
        self.complete = True
        return [part.line(task) for part in self._begun.values()]

    def _fetch(self, engine: Engine, container: str) -> list[LogMessage]:
        """Return the new messages."""
        if self._last is None:
            found, self._tail = self._ask(engine, container, self._tail), None
            return found
        window = WINDOW
        found = self._ask(engine, container, window)
        while self._last not in found and len(found) >= window:
            window *= WIDER
            found = self._ask(engine, container, window)
        # If the last message was rotated away, everything is new.
        newer = list(takewhile(lambda message: message != self._last, reversed(found)))
        return newer[::-1]

    def _ask(self, engine: Engine, container: str,
             tail: int | None) -> list[LogMessage]:
        # Docker keeps only the last few ended tasks' containers.
        found = engine.log(container, tail, TIMEOUT)
        self.trouble = found.trouble
        return found.messages


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of a line; Docker splits long ones, also in the middle of a character."""

    time: int
    text: bytes

    def line(self, task: str) -> Line:
        return Line(self.time, task, self.text.removesuffix(b"\n").decode(errors="replace"))


def nanoseconds(stamp: str) -> int:
    """Return a message's time in nanoseconds since 1970, or 0 without one."""
    found = STAMP.fullmatch(stamp)
    if not found:
        return 0
    moment = datetime.fromisoformat(f"{found[1]}{found[3]}")
    return int(moment.timestamp()) * 10 ** 9 + int((found[2] or "").ljust(9, "0"))
