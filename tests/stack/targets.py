"""Aim at an engine that a test fills, from a machine that needs no engine."""

from collections.abc import Iterator
from contextlib import contextmanager

from stack.engine import DockerCli
from stack.fleet import ALONE, Fleet, Member
from stack.machine import LocalMachine
from stack.settings import Settings
from stack.target import Target
from tests.stack.engine_api import Engine, reached

HERE = Member(ALONE, LocalMachine())


@contextmanager
def aiming_at(engine: Engine, fleet: Fleet | None = None) -> Iterator[Target]:
    """Yield the engine as a target; its docker command is the one that the test added."""
    fleet = fleet or Fleet([HERE])
    machine = fleet.members[0].machine
    with reached(engine) as client:
        yield Target(fleet, machine, client, DockerCli(machine), Settings())
