"""Targets for commands: an engine that a test fills, on a machine without Docker."""

from collections.abc import Iterator
from contextlib import contextmanager

from stack.engine.cli import DockerCli
from stack.inventory.settings import Settings
from stack.machines.local import LocalMachine
from stack.release.target import Target
from stack.swarm.fleet import ALONE, Fleet, Member
from tests.support.engine_api import FakeEngine, reached

HERE = Member(ALONE, LocalMachine())


@contextmanager
def aiming_at(fake: FakeEngine, fleet: Fleet | None = None) -> Iterator[Target]:
    """Yield the engine as a target; its docker command is the test's."""
    fleet = fleet or Fleet([HERE])
    machine = fleet.members[0].machine
    with reached(fake) as engine:
        yield Target(fleet, machine, engine, DockerCli(machine), Settings())
