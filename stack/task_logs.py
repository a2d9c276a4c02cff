"""Read what tasks have written, asked of the engine of each machine that they ran on.

Not by `docker service logs`, for which a manager asks the nodes: where there are several, that
waits for ever now and then (moby/moby#41733, docker/cli#4678).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stack import engine
from stack.engine import FAILURES, LogMessage
from stack.errors import OperatorError, Refused
from stack.fleet import Member
from stack.progress import ENDED
from stack.target import Target

# Seconds until an engine that is asked for a log is given up: other work waits meanwhile.
TIMEOUT = 10
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


class Unreadable(OperatorError):
    """One container's log can't be read, whatever the others' are like."""


class Reader:
    """Reads what the tasks of a service have written, each line once."""

    def __init__(self, target: Target, service: str, filters: Mapping[str, str],
                 tail: int | None = None) -> None:
        """Begin with the last `tail` messages of each task that matches the API's filters, or all.

        Of a task that comes later, all is read.
        """
        self._target, self._service, self._filters, self._tail = target, service, filters, tail
        self._tasks: list[dict[str, Any]] = []
        self._nodes: dict[str, str] = {}
        self._members: dict[str, Member] = {}
        # By container: how much to begin with, and the message that was read last, if any was
        # there. No clock is trusted to tell what is new: it may be set back.
        self._tails: dict[str, int | None] = {}
        self._cursors: dict[str, LogMessage | None] = {}
        self._complete: set[str] = set()
        # By task, why its log can't be read.
        self.unread: dict[str, str] = {}

    def read(self) -> list[Line]:
        """Return what is new, in the order of time, as far as it can be read.

        Without an answer from a manager, the tasks that were known before are read; where
        none were, raises one of FAILURES.
        """
        self._look()
        self.unread = {}
        lines, silent = list[Line](), dict[str, str]()
        for task in self._tasks:
            node, container = task.get("NodeID", ""), container_of(task)
            if container in self._complete or node not in self._nodes:
                continue
            try:
                if node not in silent:
                    lines += in_lines(self._new(task, container), self._name(task))
            except Unreadable as error:
                self.unread[self._name(task)] = error.cause
            except FAILURES as error:
                # Nor would it answer for its other tasks, each of which would take as long.
                silent[node] = engine.cause_of(error)
            if node in silent:
                self.unread[self._name(task)] = silent[node]
        return sorted(lines, key=lambda line: line.time)

    def _look(self) -> None:
        client = self._target.client
        try:
            self._members = self._target.members()
            nodes = {node["ID"]: node["Description"]["Hostname"] for node in client.api.nodes()}
            tasks = client.api.tasks(filters=dict(self._filters))
        except FAILURES:
            # Another manager may know; its connections would stay with the one that was asked.
            self._target.machine.pass_over()
            client.close()
            if not self._tasks:
                raise
            return
        self._nodes, self._tasks = nodes, [task for task in tasks if container_of(task)]
        for task in self._tasks:
            self._tails.setdefault(container_of(task), self._tail)
        # What comes later is new from its beginning.
        self._tail = None

    def _name(self, task: Mapping[str, Any]) -> str:
        slot = f".{task['Slot']}" if task.get("Slot") else ""
        return f"{self._service}{slot}@{self._nodes[task['NodeID']]}"

    def _new(self, task: Mapping[str, Any], container: str) -> Sequence[LogMessage]:
        """Return the messages of a task that weren't read before."""
        member = self._members.get(task["NodeID"])
        if member is None or not member.machine.alive:
            raise Refused("its machine can't be reached, or isn't in the inventory")
        found = self._after_cursor(member, container)
        if task["Status"]["State"] in ENDED:
            self._complete.add(container)
        else:
            # A message without an end is a part of a long line, of which the rest is to come.
            whole = [index for index, message in enumerate(found, 1) if message.ends]
            found = found[:whole[-1] if whole else 0]
        self._cursors[container] = found[-1] if found else self._cursors.get(container)
        return found

    def _after_cursor(self, member: Member, container: str) -> list[LogMessage]:
        if container not in self._cursors:
            return messages(member, container, self._tails[container])
        cursor = self._cursors[container]
        if cursor is None:
            return messages(member, container, None)
        window = WINDOW
        found = messages(member, container, window)
        while cursor not in found and len(found) >= window:
            window *= WIDER
            found = messages(member, container, window)
        # Without it, so much was written meanwhile that it was dropped: all the rest is new.
        return found[found.index(cursor) + 1:] if cursor in found else found


def container_of(task: Mapping[str, Any]) -> str:
    """Return the id of a task's container, "" as long as there is none."""
    return str(task["Status"].get("ContainerStatus", {}).get("ContainerID", ""))


def messages(member: Member, container: str, tail: int | None) -> list[LogMessage]:
    """Return the last messages of a container, or all; none if it is gone.

    Of the tasks that have ended, Docker keeps only the last few. Raises Unreadable, or one of
    FAILURES.
    """
    found = engine.container_log(member.client, container, tail, TIMEOUT)
    if isinstance(found, str):
        raise Unreadable(found)
    return found


def in_lines(found: Sequence[LogMessage], task: str) -> Iterator[Line]:
    """Join the messages that are parts of one line, and give each line its time.

    Docker splits what is longer than 16 KiB.
    """
    parts: dict[int, Line] = {}
    for message in found:
        stamp, _, text = message.text.partition(" ")
        begun = parts.pop(message.stream, None) or Line(nanoseconds(stamp), task, "")
        line = Line(begun.time, task, begun.text + text.removesuffix("\n"))
        if message.ends:
            yield line
        else:
            parts[message.stream] = line
    yield from parts.values()


def nanoseconds(stamp: str) -> int:
    """Return a message's time since 1970; raises Unreadable where there is none."""
    found = STAMP.fullmatch(stamp)
    if not found:
        raise Unreadable(f"its log has {stamp[:40]!r} where a time should be")
    moment = datetime.fromisoformat(f"{found[1]}{found[3]}")
    return int(moment.timestamp()) * 10 ** 9 + int((found[2] or "").ljust(9, "0"))
