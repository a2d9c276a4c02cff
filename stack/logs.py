"""Show what tasks have written, asked of the machines that they ran on.

Not by `docker service logs`, for which a manager asks the nodes: where there are several, that
waits for ever now and then (moby/moby#41733, docker/cli#4678).
"""

import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

import docker
import requests
from docker.errors import DockerException, NotFound

from stack import console, engine, records
from stack.errors import OperatorError, Refused, raise_all
from stack.fleet import Member
from stack.rollout import NotArrived
from stack.swarm import STACK
from stack.target import Target

FAILURES = (OperatorError, DockerException, requests.RequestException)
# Seconds until a machine that is asked for a log, where other work waits, is given up.
TIMEOUT = 10
# Seconds from one look for new lines to the next.
FOLLOW_POLL = 1.0
# How many lines tell why a task failed.
CULPRIT_LINES = 20
# The exit codes of a program that was ended by Ctrl-C, or whose output nobody reads any more.
SIGINT, SIGPIPE = 130, 141


@dataclass(frozen=True, order=True)
class Line:
    """What a task, such as app.1@anna, wrote at a time: RFC 3339 with nanoseconds, in UTC."""

    time: str
    task: str = field(compare=False)
    text: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.task} | {self.text}"


class Reader:
    """Reads what the tasks of a service have written, each line once."""

    def __init__(self, target: Target, service: str, filters: Mapping[str, str],
                 tail: int | None = None) -> None:
        """Begin with the last `tail` lines of each task that matches the API's filters, or all."""
        self._target, self._service, self._filters, self._tail = target, service, filters, tail
        self._tasks: list[dict[str, Any]] = []
        self._nodes: dict[str, str] = {}
        self._members: dict[str, Member] = {}
        self._clients: dict[str, docker.DockerClient] = {}
        # By container, the time of the last line that was read.
        self._last: dict[str, str] = {}
        # By task, why its log can't be read.
        self.unread: dict[str, str] = {}

    def read(self) -> list[Line]:
        """Return what is new, in the order of time, as far as it can be read.

        Without an answer from a manager, the tasks that were known before are read; where
        none were, raises one of FAILURES.
        """
        try:
            self._look()
        except FAILURES:
            if not self._tasks:
                raise
        self.unread = {}
        lines = [line for task in self._tasks if task.get("NodeID") in self._nodes
                 for line in self._read(task)]
        self._tail = None
        return sorted(lines)

    def _look(self) -> None:
        client = self._target.client
        self._members = self._target.members()
        self._nodes = {node["ID"]: node["Description"]["Hostname"] for node in client.api.nodes()}
        self._tasks = client.api.tasks(filters=dict(self._filters))

    def _read(self, task: dict[str, Any]) -> list[Line]:
        container = task["Status"].get("ContainerStatus", {}).get("ContainerID")
        if not container:
            return []
        try:
            return self._new(task["NodeID"], container, self._name(task))
        except NotFound:
            # It has gone: Docker keeps the last few of those that have ended.
            return []
        except FAILURES as error:
            self.unread[self._name(task)] = str(error)
            return []

    def _name(self, task: Mapping[str, Any]) -> str:
        slot = f".{task['Slot']}" if task.get("Slot") else ""
        return f"{self._service}{slot}@{self._nodes[task['NodeID']]}"

    def _new(self, node: str, container: str, task: str) -> list[Line]:
        last = self._last.get(container, "")
        # The engine's filter is only as exact as a float.
        since = datetime.fromisoformat(last).timestamp() - 0.001 if last else None
        said: bytes = self._engine(node).logs(container, timestamps=True, since=since,
                                              tail=self._tail or "all")
        parts = [line.partition(" ") for line in said.decode(errors="replace").split("\n")]
        lines = [Line(at, task, text) for at, _, text in parts if at > last]
        self._last[container] = max([last, *(line.time for line in lines)])
        return lines

    def _engine(self, node: str) -> docker.APIClient:
        """Return the engine of a node; raises Refused if there is no way to it."""
        member = self._members.get(node)
        if member is None or not member.machine.alive:
            raise Refused("its machine can't be reached")
        if node not in self._clients:
            self._clients[node] = engine.connect(member.machine, TIMEOUT)
        return self._clients[node].api


@engine.in_one_line
def logs(service: str, follow: bool, lines: str) -> None:
    """Print the last lines of one service's tasks, in the order of time; `follow` goes on."""
    if not re.fullmatch("[0-9]{1,9}|all", lines):
        raise Refused(f"--lines={lines!r}", "it should be a number, or all")
    # Whoever reads the log from a pipe wants nothing else in it.
    console.leave_stdout()
    target = Target.reach("./fab logs")
    names = sorted(records.spec_hashes(target.client))
    if service not in names:
        raise Refused(f"there is no service {service!r}",
                      f"choose one of: {', '.join(names) or 'none, ./fab deploy first'}")
    most = None if lines == "all" else int(lines)
    # Without at least one of a task's lines, nothing tells which of them are new later.
    reader = Reader(target, service, {"service": f"{STACK}_{service}"}, most and max(1, most))
    first = reader.read()
    show(first if most is None else first[max(0, len(first) - most):])
    if follow:
        go_on(reader)
    raise_all([OperatorError(f"the log of {task} can't be read: {cause}", "./fab status")
               for task, cause in reader.unread.items()])


def go_on(reader: Reader) -> NoReturn:
    """Print what comes, until Ctrl-C; that something can't be read is said once."""
    told: dict[str, str] = {}
    try:
        while True:
            for task, cause in reader.unread.items() - told.items():
                console.say(f"the log of {task} can't be read: {cause}")
            told = reader.unread
            time.sleep(FOLLOW_POLL)
            show(reader.read())
    except KeyboardInterrupt:
        raise SystemExit(SIGINT) from None


def show(lines: list[Line]) -> None:
    """Print lines; ends the program where nobody reads them any more."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(SIGPIPE) from None


def tell_cause(target: Target, failure: NotArrived) -> None:
    """Print what Docker said of a failure, and the last lines of the task that is to blame."""
    console.block(failure.said)
    if failure.task:
        with suppress(*FAILURES):
            reader = Reader(target, "", {"id": failure.task}, CULPRIT_LINES)
            console.block([line.text for line in reader.read()])
            console.block([f"its log can't be read: {cause}" for cause in reader.unread.values()])
