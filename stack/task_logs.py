"""Read what tasks have written, asked of the engine of each machine that they ran on.

Not by `docker service logs`, for which a manager asks the nodes: where there are several, that
waits for ever now and then (moby/moby#41733, docker/cli#4678).
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

import docker

from stack import container_log, engine
from stack.container_log import LogMessage
from stack.engine import FAILURES
from stack.errors import Refused
from stack.fleet import Member
from stack.progress import ENDED, Task
from stack.target import Target

# Seconds until an engine that is asked for a log is given up, since other work waits meanwhile;
# and for which it is left alone then.
TIMEOUT, PAUSE = 10, 30.0
# How many of a task's last messages are looked through for what is new, and how many times as
# many if all of them are.
WINDOW, WIDER = 100, 10
# RFC 3339, which Docker's older versions wrote in the machine's own time zone (moby/moby#46913).
STAMP = re.compile(r"([0-9-]{10}T[0-9:]{8})(?:\.([0-9]{1,9}))?(Z|[+-][0-9:]{5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """What a task, such as app.1@anna, wrote; `time` is in nanoseconds since 1970."""

    time: int
    task: str
    text: str

    def __str__(self) -> str:
        return f"{self.task} | {self.text}"


class Reader:
    """Reads what the tasks of a service have written, each line once."""

    def __init__(self, target: Target, service: str, filters: Mapping[str, str],
                 tail: int | None = None) -> None:
        """Begin with the last `tail` messages of each task that matches the API's filters, or all.

        Of a task that comes later, all is read. A message is a line, or a part of a long one.
        """
        self._target, self._service, self._filters, self._tail = target, service, filters, tail
        self._looked = False
        self._tasks: list[Task] = []
        self._nodes: dict[str, str] = {}
        self._members: dict[str, Member] = {}
        self._clients: dict[str, docker.DockerClient] = {}
        # By node, until when it isn't asked again, and why.
        self._silent: dict[str, tuple[float, str]] = {}
        self._logs: dict[str, TaskLog] = {}
        # By task, why its log can't be read.
        self.unread: dict[str, str] = {}

    def read(self) -> list[Line]:
        """Return what is new, in the order of time, as far as it can be read.

        Without an answer from a manager, the tasks that were known before are read; raises one
        of FAILURES where there never was one.
        """
        self.unread = {}
        self._look()
        lines = list[Line]()
        for task in self._tasks:
            name = self._name(task)
            try:
                lines += self._new(task, name)
            except FAILURES as error:
                self.unread[name] = engine.cause_of(error)
        return sorted(lines, key=lambda line: line.time)

    def _look(self) -> None:
        client = self._target.client
        try:
            self._members = self._target.members()
            nodes = {node["ID"]: node["Description"].get("Hostname") or node["ID"][:12]
                     for node in client.api.nodes()}
            tasks = client.api.tasks(filters=dict(self._filters))
        except FAILURES as error:
            if not self._looked:
                raise
            self.unread["tasks that are new"] = engine.cause_of(error)
            # Another manager may know; its connections would stay with the one that was asked.
            self._target.machine.pass_over()
            client.close()
            return
        self._nodes = nodes
        self._tasks = [task for task in tasks if container_of(task) and task["NodeID"] in nodes]
        for task in self._tasks:
            self._logs.setdefault(container_of(task), TaskLog(self._tail))
        # What comes later is new from its beginning.
        self._looked, self._tail = True, None

    def _name(self, task: Task) -> str:
        slot = f".{task['Slot']}" if task.get("Slot") else ""
        return f"{self._service}{slot}@{self._nodes[task['NodeID']]}"

    def _new(self, task: Task, name: str) -> list[Line]:
        """Return the lines of a task that weren't read before; raises one of FAILURES."""
        container, node = container_of(task), task["NodeID"]
        log = self._logs[container]
        if log.complete:
            return []
        until, cause = self._silent.get(node, (0.0, ""))
        if time.monotonic() < until:
            raise Refused(cause)
        ended = task["Status"]["State"] in ENDED
        try:
            lines = log.read(self._engine(node), container, name)
        except FAILURES as error:
            # Nor would it answer for its other tasks, each of which would take as long.
            self._silent[node] = (time.monotonic() + PAUSE, engine.cause_of(error))
            raise
        if log.trouble:
            self.unread[name] = log.trouble
        return lines + log.end(name) if ended else lines

    def _engine(self, node: str) -> docker.DockerClient:
        """Return the engine of a node; raises Refused if there is no way to it."""
        member = self._members.get(node)
        if member is None or not member.machine.alive:
            raise Refused("its machine can't be reached, or isn't in the inventory")
        if node not in self._clients:
            self._clients[node] = engine.connect(member.machine, TIMEOUT)
        return self._clients[node]


class TaskLog:
    """How far the log of one container has been read.

    No clock is trusted to tell what is new: it may have been set back.
    """

    def __init__(self, tail: int | None) -> None:
        self._tail = tail
        self._last: LogMessage | None = None
        # By stream, the line that has begun and of which the rest is to come.
        self._begun: dict[int, Part] = {}
        self.complete = False
        # Why some of it can't be read.
        self.trouble = ""

    def read(self, client: docker.DockerClient, container: str, task: str) -> list[Line]:
        """Return the whole lines that are new; raises one of FAILURES."""
        lines = []
        for message in self._fetch(client, container):
            self._last = message
            begun = self._begun.pop(message.stream, Part(nanoseconds(message.time), b""))
            part = Part(begun.time, begun.text + message.text)
            if message.ends:
                lines.append(part.line(task))
            else:
                self._begun[message.stream] = part
        return lines

    def end(self, task: str) -> list[Line]:
        """Return what never became a whole line: nothing more is written."""
        self.complete = True
        return [part.line(task) for part in self._begun.values()]

    def _fetch(self, client: docker.DockerClient, container: str) -> list[LogMessage]:
        """Return the messages that are new."""
        if self._last is None:
            found, self._tail = self._ask(client, container, self._tail), None
            return found
        window = WINDOW
        found = self._ask(client, container, window)
        while self._last not in found and len(found) >= window:
            window *= WIDER
            found = self._ask(client, container, window)
        # Without it, so much was written meanwhile that it was dropped: all the rest is new.
        newer = list(takewhile(lambda message: message != self._last, reversed(found)))
        return newer[::-1]

    def _ask(self, client: docker.DockerClient, container: str,
             tail: int | None) -> list[LogMessage]:
        # Of the tasks that have ended, Docker keeps only the last few containers.
        found = container_log.read(client, container, tail, TIMEOUT)
        self.trouble = found.trouble
        return found.messages


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of a line; Docker splits long ones, also in the middle of a character."""

    time: int
    text: bytes

    def line(self, task: str) -> Line:
        return Line(self.time, task, self.text.removesuffix(b"\n").decode(errors="replace"))


def container_of(task: Task) -> str:
    """Return the id of a task's container, "" as long as there is none."""
    return str(task["Status"].get("ContainerStatus", {}).get("ContainerID", ""))


def nanoseconds(stamp: str) -> int:
    """Return a message's time since 1970, 0 where there is none."""
    found = STAMP.fullmatch(stamp)
    if not found:
        return 0
    moment = datetime.fromisoformat(f"{found[1]}{found[3]}")
    return int(moment.timestamp()) * 10 ** 9 + int((found[2] or "").ljust(9, "0"))
