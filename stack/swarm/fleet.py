"""The machines that commands work on: those of an inventory, or just this one."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import TypeVar

from paramiko import Channel

from stack import inventory, progress
from stack.engine import connection, failures
from stack.engine.engine import Engine
from stack.engine.failures import EngineError
from stack.errors import OperatorError, Refused, raise_all
from stack.inventory import Host, Inventory, settings
from stack.machines.host_keys import FILE, Pinned
from stack.machines.local import LocalMachine
from stack.machines.machine import Completed, Input, Machine
from stack.machines.ssh import Gone, RemoteMachine
from stack.machines.tunnel import Tunnel
from stack.progress import Step
from stack.swarm import membership
from stack.swarm.membership import Membership

R = TypeVar("R")
# Without an inventory: this machine alone, reached without SSH.
ALONE = Host("this machine", "manager", None,
             {"edge": "true", "postgres": "true", "registry": "false"})


@dataclass(frozen=True)
class Member:
    """A machine and its inventory entry."""

    host: Host
    machine: Machine

    @property
    def name(self) -> str:
        return self.machine.name

    @cached_property
    def engine(self) -> Engine:
        """The machine's engine; one connection, as sshd allows few sessions."""
        return connection.connect(self.machine)

    def membership(self) -> Membership:
        """Read the machine's Swarm membership; raises Gone or NoAnswer."""
        with naming(self.machine):
            return membership.membership(self.engine)

    @property
    def private(self) -> str:
        """The address at which other nodes reach it; "" if it is alone."""
        return str(self.host.private or "")


class Fleet:
    """The reachable machines, in the inventory's order.

    `missing` are the errors of the others. `inventory` is None for this machine alone.
    """

    def __init__(self, members: Sequence[Member], chosen: Inventory | None = None,
                 missing: Mapping[Host, OperatorError] | None = None) -> None:
        self.members = tuple(members)
        self.inventory = chosen
        self.missing = dict(missing or {})

    @property
    def managers(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.host.role == "manager")

    @property
    def several(self) -> bool:
        """Whether the nodes need a network and a shared image store."""
        return len(self.members) + len(self.missing) > 1

    @property
    def local(self) -> bool:
        return self.inventory is None

    def each(self, name: str, work: Callable[[Member, Step], R],
             members: Sequence[Member] | None = None) -> list[R]:
        """Run a step in parallel on all machines, or on some of them."""
        def named(member: Member, current: Step) -> R:
            with failures.ending_the_command(), naming(member.machine):
                return work(member, current)
        try:
            return progress.together(name, self.members if members is None else members, named,
                                     alone=self.local)
        except KeyboardInterrupt:
            # End the running commands, so that nothing waits for them.
            self.close()
            raise

    def close(self) -> None:
        """End every connection."""
        for member in self.members:
            if isinstance(member.machine, RemoteMachine):
                member.machine.close()


@contextmanager
def naming(machine: Machine) -> Iterator[None]:
    """Name the lost machine where its engine only reports a closed connection."""
    try:
        yield
    except EngineError:
        if isinstance(machine, RemoteMachine):
            # Raises Gone if the connection is lost, which may be unnoticed so far.
            machine.run(["true"])
        raise


def reach(*, accept: bool = False, partly: bool = False, patience: float = 0) -> Fleet:
    """Reach the machines of the chosen inventory, or this one, until the program ends.

    With `partly`, unreachable machines are left out as long as a manager can be
    reached; otherwise they are an error, after `patience` seconds.
    """
    path = settings.inventory_path()
    if path is None:
        return Fleet([Member(ALONE, LocalMachine())])
    fleet = connect(inventory.load(path), path, accept=accept, partly=partly, patience=patience)
    atexit.register(fleet.close)
    return fleet


def connect(chosen: Inventory, path: Path, *, accept: bool, partly: bool,
            patience: float) -> Fleet:
    """Log in to every machine in parallel."""
    pinned = Pinned(path.parent / FILE, accept)
    members = [Member(host, RemoteMachine(host, chosen.ssh, pinned)) for host in chosen.nodes]
    missing: dict[Host, OperatorError] = {}

    def log_in(member: Member) -> None:
        assert isinstance(member.machine, RemoteMachine)
        try:
            member.machine.connect(patience)
        except (Refused, Gone) as error:
            missing[member.host] = error
    new, known = _by_acquaintance(members, pinned)
    # Ask about one new machine at a time, without a spinner.
    for member in new:
        log_in(member)
    if known:
        with progress.spinner("connecting"), ThreadPoolExecutor(len(known)) as pool:
            list(pool.map(log_in, known))
    fleet = Fleet([member for member in members if member.host not in missing], chosen, missing)
    if missing and not (partly and fleet.managers):
        fleet.close()
        raise_all(list(missing.values()))
    return fleet


def _by_acquaintance(members: Sequence[Member], pinned: Pinned
                     ) -> tuple[list[Member], list[Member]]:
    """Return the machines whose host keys need confirmation, and the others."""
    new = [member for member in members if isinstance(member.machine, RemoteMachine)
           and not member.machine.is_known and not pinned.accept]
    return new, [member for member in members if member not in new]


def builders(machines: Fleet) -> list[Member]:
    """Return the managers in build order: the one that stores the images first."""
    return sorted(machines.managers,
                  key=lambda member: member.host.labels.get("registry") != "true")


def holder(machines: Fleet, label: str) -> Member | None:
    """Return the machine that has a placement label, if it can be reached."""
    return next((member for member in machines.members
                 if member.host.labels.get(label) == "true"), None)


def address(machine: Machine) -> str:
    """Return the address at which this program reaches a machine."""
    return machine.address if isinstance(machine, RemoteMachine) else "127.0.0.1"


class AnyManager(Machine):
    """Any manager that answers: another takes over when contact is lost.

    A command that runs when its manager is lost fails and says so; the next command
    goes to the next manager, and so does the Engine's API.
    """

    def __init__(self, managers: Sequence[Member]) -> None:
        self._managers = list(managers)
        self._tunnel: Tunnel | None = None
        self._opening = threading.Lock()

    def avoid(self, member: Member) -> None:
        """Use this manager only if no other answers."""
        self._managers = sorted(self._managers, key=lambda each: each is member)

    @property
    def current(self) -> Machine:
        """The first manager with a live connection; raises Gone if there is none."""
        for member in self._managers:
            if member.machine.alive:
                return member.machine
        raise Gone("lost contact with every manager", "./fab status when they are back")

    @property
    def alive(self) -> bool:
        return any(member.machine.alive for member in self._managers)

    def pass_over(self) -> None:
        # The connection may be alive while the engine doesn't answer.
        self._managers = [*self._managers[1:], self._managers[0]]

    @property
    def name(self) -> str:
        return self.current.name

    @property
    def docker_host(self) -> str:
        if isinstance(self._managers[0].machine, LocalMachine):
            return self._managers[0].machine.docker_host
        with self._opening:
            self._tunnel = self._tunnel or Tunnel(self._dial)
            return self._tunnel.host

    def _dial(self) -> Channel:
        while True:
            machine = self.current
            assert isinstance(machine, RemoteMachine)
            try:
                return machine.dial()
            except Gone:
                continue

    def run(self, command: Sequence[str], *, stdin: Input = None,
            env: Mapping[str, str] | None = None, cwd: PurePath | None = None,
            timeout: float | None = None) -> Completed:
        return self.current.run(command, stdin=stdin, env=env, cwd=cwd, timeout=timeout)

    def holding(self, folder: Path) -> AbstractContextManager[PurePath]:
        return self.current.holding(folder)

    def exclusively(self, lock: str) -> AbstractContextManager[None]:
        return self.current.exclusively(lock)
