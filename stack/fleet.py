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

import docker
import requests
from docker.errors import DockerException
from paramiko import Channel

from stack import console, engine, inventory, settings, swarm
from stack.console import Step
from stack.errors import OperatorError, Refused, raise_all
from stack.host_keys import FILE, Pinned
from stack.inventory import Inventory, Node
from stack.machine import Completed, Input, LocalMachine, Machine
from stack.remote import Gone, RemoteMachine
from stack.swarm import Membership
from stack.tunnel import Tunnel

R = TypeVar("R")
# Without an inventory: this machine alone, reached without SSH.
ALONE = Node("this machine", "manager", None,
             {"edge": "true", "postgres": "true", "registry": "false"})


@dataclass(frozen=True)
class Member:
    """A machine, and what the inventory says of it."""

    node: Node
    machine: Machine

    @property
    def name(self) -> str:
        return self.machine.name

    @cached_property
    def client(self) -> docker.DockerClient:
        """Its engine; one client, as each keeps some of the few sessions that sshd allows."""
        return engine.connect(self.machine)

    def membership(self) -> Membership:
        """Read its part in a Swarm; raises Gone if it has gone."""
        with naming(self.machine):
            return swarm.membership(self.client)

    @property
    def private(self) -> str:
        """The address at which the other nodes find it; "" if it is alone."""
        return str(self.node.private or "")


class Fleet:
    """Every machine that could be reached, in the inventory's order.

    `missing` are the errors of the others. `inventory` is None for this machine alone.
    """

    def __init__(self, members: Sequence[Member], chosen: Inventory | None = None,
                 missing: Mapping[Node, OperatorError] | None = None) -> None:
        self.members = tuple(members)
        self.inventory = chosen
        self.missing = dict(missing or {})

    @property
    def managers(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.node.role == "manager")

    @property
    def several(self) -> bool:
        """Whether it takes a network, and images that all can fetch."""
        return len(self.members) + len(self.missing) > 1

    @property
    def local(self) -> bool:
        return self.inventory is None

    def each(self, name: str, work: Callable[[Member, Step], R],
             members: Sequence[Member] | None = None) -> list[R]:
        """Do a step on all machines side by side, or on some of them."""
        def named(member: Member, current: Step) -> R:
            with naming(member.machine):
                return work(member, current)
        try:
            return console.together(name, self.members if members is None else members, named,
                                    alone=self.local)
        except KeyboardInterrupt:
            # Ends what still runs, so that nothing waits for it.
            self.close()
            raise

    def close(self) -> None:
        """End every connection."""
        for member in self.members:
            if isinstance(member.machine, RemoteMachine):
                member.machine.close()


@contextmanager
def naming(machine: Machine) -> Iterator[None]:
    """Say which machine went away, where the SDK only sees a connection that ended."""
    try:
        yield
    except (DockerException, requests.RequestException):
        if isinstance(machine, RemoteMachine):
            # Raises Gone if it is: that may not have been noticed yet.
            machine.run(["true"])
        raise


def reach(*, accept: bool = False, partly: bool = False, patience: float = 0) -> Fleet:
    """Reach the machines of the chosen inventory, or this one, until the program ends.

    With `partly`, machines that can't be reached are left out as long as a manager
    can; otherwise any of them is an error, after so many seconds of `patience`.
    """
    path = settings.inventory_path()
    if path is None:
        return Fleet([Member(ALONE, LocalMachine())])
    fleet = connect(inventory.load(path), path, accept=accept, partly=partly, patience=patience)
    atexit.register(fleet.close)
    return fleet


def connect(chosen: Inventory, path: Path, *, accept: bool, partly: bool,
            patience: float) -> Fleet:
    """Log in to every machine, side by side."""
    pinned = Pinned(path.parent / FILE, accept)
    members = [Member(node, RemoteMachine(node, chosen.ssh, pinned)) for node in chosen.nodes]
    missing: dict[Node, OperatorError] = {}

    def log_in(member: Member) -> None:
        assert isinstance(member.machine, RemoteMachine)
        try:
            member.machine.connect(patience)
        except (Refused, Gone) as error:
            missing[member.node] = error
    new, known = _by_acquaintance(members, pinned)
    # A person is asked about one new machine after the other, and no spinner is in the way.
    for member in new:
        log_in(member)
    if known:
        with console.OUT.status("connecting"), ThreadPoolExecutor(len(known)) as pool:
            list(pool.map(log_in, known))
    fleet = Fleet([member for member in members if member.node not in missing], chosen, missing)
    if missing and not (partly and fleet.managers):
        fleet.close()
        raise_all(list(missing.values()))
    return fleet


def _by_acquaintance(members: Sequence[Member], pinned: Pinned
                     ) -> tuple[list[Member], list[Member]]:
    """Return the machines whose keys a person has to confirm, and the others."""
    new = [member for member in members if isinstance(member.machine, RemoteMachine)
           and not pinned.accept
           and not pinned.knows(member.machine.address, member.machine.port)]
    return new, [member for member in members if member not in new]


def builders(machines: Fleet) -> list[Member]:
    """Return the managers in the order in which images are built on them: where they are kept."""
    return sorted(machines.managers,
                  key=lambda member: member.node.labels.get("registry") != "true")


def holder(machines: Fleet, label: str) -> Member | None:
    """Return the machine that has a placement label, if it can be reached."""
    return next((member for member in machines.members
                 if member.node.labels.get(label) == "true"), None)


def address(machine: Machine) -> str:
    """Return where this program finds a machine."""
    return machine.address if isinstance(machine, RemoteMachine) else "127.0.0.1"


class AnyManager(Machine):
    """Whichever manager answers: another takes over when one has gone.

    A command that was under way when its manager went is lost and says so; the next
    one goes to the next manager, and so does the Engine's API.
    """

    def __init__(self, managers: Sequence[Member]) -> None:
        self._managers = list(managers)
        self._tunnel: Tunnel | None = None
        self._opening = threading.Lock()

    def avoid(self, member: Member) -> None:
        """Ask this manager only if no other answers."""
        self._managers.sort(key=lambda each: each is member)

    @property
    def current(self) -> Machine:
        """The first manager whose connection stands; raises Gone if none does."""
        for member in self._managers:
            if member.machine.alive:
                return member.machine
        raise Gone("no manager answers any more", "./fab status when they are back")

    @property
    def alive(self) -> bool:
        return any(member.machine.alive for member in self._managers)

    def pass_over(self) -> None:
        # Its connection may stand while its engine doesn't answer.
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
