"""An engine whose containers have written something, in the Engine API's own framing."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from stack import engine
from stack.errors import OperatorError, Refused
from stack.fleet import Fleet, Member
from stack.inventory import Node
from stack.machine import LocalMachine
from stack.swarm import NAMESPACE
from stack.target import Target
from tests.stack.engine_api import Engine
from tests.stack.inventories import load, node, swarm
from tests.stack.targets import aiming_at

STDOUT, STDERR, ENGINES_OWN = 1, 2, 3
# A stream, and what was written to it: a time, a space, and usually a line.
Message = tuple[int, str]


def stamp(second: int, nanosecond: int = 0) -> str:
    return f"2026-01-01T00:00:{second:02}.{nanosecond:09}Z"


def wrote(second: int, text: str) -> Message:
    return STDOUT, f"{stamp(second)} {text}\n"


class Logging(Engine):
    """An engine with one service, tally_app; `written` has the messages of each container."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds["services"]["tally_app"] = {"ID": "tally_app", "Spec": {
            "Name": "tally_app", "Labels": {NAMESPACE: "tally"}}}
        self.written: dict[str, list[Message]] = {}
        # What the engine says instead of a container's log.
        self.unreadable: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []

    def node(self, key: str, address: str) -> None:
        self.kinds["nodes"][key] = {"ID": key, "Description": {"Hostname": f"host-{key}"},
                                    "Status": {"State": "ready", "Addr": address}}

    def task(self, slot: int, at: str, *messages: Message, container: bool = True) -> None:
        """Add a task of the application."""
        key = f"t{slot}"
        self.kinds["tasks"][key] = {
            "ID": key, "ServiceID": "tally_app", "Slot": slot, "NodeID": at, "Status": {
                "State": "running", "ContainerStatus": {"ContainerID": key} if container else {}}}
        self.written[key] = list(messages)

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        if path[0] != "containers" or self.failing:
            return super().answer(method, path, query, body)
        container, tail = path[1], query["tail"][0]
        self.asked.append((container, tail))
        if container in self.unreadable:
            return 500, {"message": self.unreadable[container]}
        if container not in self.written:
            return 404, {"message": f"No such container: {container}"}
        messages = self.written[container]
        last = messages if tail == "all" else messages[max(0, len(messages) - int(tail)):]
        return 200, b"".join(struct.pack(">BxxxL", stream, len(text.encode())) + text.encode()
                             for stream, text in last)

    def _matches(self, each: dict[str, Any], wanted: dict[str, list[str]]) -> bool:
        return each["ID"] in wanted["id"] if "id" in wanted else super()._matches(each, wanted)


@contextmanager
def two_machines(api: Logging, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Target]:
    """Yield two machines with the same engine; a third of the inventory can't be reached."""
    api.node("one", "10.0.0.1")
    api.node("two", "10.0.0.2")
    chosen = load(folder, swarm(node(1), node(2, "worker"), node(3, "worker")))
    there = [Member(each, LocalMachine()) for each in chosen.nodes[:2]]
    missing: dict[Node, OperatorError] = {chosen.nodes[2]: Refused("it can't be reached")}
    with aiming_at(api, Fleet(there, chosen, missing)) as target:
        def connect(machine: LocalMachine) -> docker.DockerClient:
            return target.client
        patch.setattr(engine, "connect", connect)
        yield target
