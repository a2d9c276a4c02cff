"""A stand-in for an engine with container logs, in the Engine API's framing."""

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stack import inventory
from stack.engine import connection
from stack.engine.engine import Engine
from stack.errors import OperatorError, Refused
from stack.machines.local import LocalMachine
from stack.machines.machine import Machine
from stack.release.target import Target
from stack.swarm.fleet import Fleet, Member
from stack.swarm.names import NAMESPACE
from tests.support.engine_api import FakeEngine, reached
from tests.support.inventories import load, node, swarm
from tests.support.targets import aiming_at

STDOUT, STDERR, ENGINES_OWN = 1, 2, 3
# A stream, and a message: a time, a space, and usually a line.
Message = tuple[int, str | bytes]


def stamp(second: int, nanosecond: int = 0) -> str:
    return f"2026-01-01T00:00:{second:02}.{nanosecond:09}Z"


def wrote(second: int, text: str) -> Message:
    return STDOUT, f"{stamp(second)} {text}\n"


def framed(stream: int, text: str | bytes) -> bytes:
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">BxxxL", stream, len(data)) + data


class Logging(FakeEngine):
    """An engine with one service, tally_app; `written` has each container's messages."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds["services"]["tally_app"] = {"ID": "tally_app", "Spec": {
            "Name": "tally_app", "Labels": {NAMESPACE: "tally"}}}
        self.written: dict[str, list[Message]] = {}
        self.at: dict[str, str] = {}
        # The engine's answers instead of a container's log.
        self.unreadable: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []

    def node(self, key: str, address: str) -> None:
        self.kinds["nodes"][key] = {"ID": key, "Description": {"Hostname": f"host-{key}"},
                                    "Status": {"State": "ready", "Addr": address}}

    def task(self, slot: int, at: str, *messages: Message, container: bool = True) -> None:
        """Add a task of the application on a node."""
        key = f"t{slot}"
        self.at[key] = at
        self.kinds["tasks"][key] = {
            "ID": key, "ServiceID": "tally_app", "Slot": slot, "NodeID": at,
            "DesiredState": "running", "Status": {
                "State": "running", "ContainerStatus": {"ContainerID": key} if container else {}}}
        self.written[key] = list(messages)

    def log(self, node: str, container: str, tail: str) -> tuple[int, Any]:
        """Return a node's answer to a request for a log."""
        self.asked.append((container, tail))
        if self.at.get(container) != node or container not in self.written:
            return 404, {"message": f"No such container: {container}"}
        if container in self.unreadable:
            return 500, {"message": self.unreadable[container]}
        messages = self.written[container]
        last = messages if tail == "all" else messages[max(0, len(messages) - int(tail)):]
        return 200, b"".join(framed(*message) for message in last)


class Node(FakeEngine):
    """The engine of one node, with only the containers there."""

    def __init__(self, api: Logging, name: str) -> None:
        super().__init__()
        self._api, self._name = api, name

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        assert path[0] == "containers" and path[2] == "logs"
        return self._api.log(self._name, path[1], query["tail"][0])


@contextmanager
def two_machines(api: Logging, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Target]:
    """Yield two machines; a third one of the inventory can't be reached."""
    names = ("one", "two")
    for number, name in enumerate(names, 1):
        api.node(name, f"10.0.0.{number}")
    chosen = load(folder, swarm(node(1), node(2, "worker"), node(3, "worker")))
    there = [Member(each, LocalMachine()) for each in chosen.nodes[:2]]
    missing: dict[inventory.Host, OperatorError] = {chosen.nodes[2]: Refused("it can't be reached")}
    with aiming_at(api, Fleet(there, chosen, missing)) as target, ExitStack() as engines:
        known = [(member.machine, engines.enter_context(reached(Node(api, name))))
                 for member, name in zip(there, names)]

        def connect(machine: Machine, timeout: float) -> Engine:
            return next(engine for each, engine in known if each is machine)
        patch.setattr(connection, "connect", connect)
        yield target
