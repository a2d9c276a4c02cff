"""What a deploy decides by: what the Swarm holds as it begins, and what runs before its update."""

from collections.abc import Mapping
from dataclasses import dataclass

from stack.images.base import Base
from stack.inventory.settings import DEFAULT_REPLICAS
from stack.machines import facts
from stack.machines.docker_command import SOCKET
from stack.release.target import Target
from stack.state import releases, schema
from stack.state.releases import Record
from stack.state.revisions import Revision
from stack.swarm import packets, secrets, services
from stack.swarm.stackfile import Stack


@dataclass(frozen=True)
class Found:
    """What preflight has found. Under the lock, only this deploy changes it.

    `base` is the base image, None if it is missing. `history` are the proven releases, newest
    first. `secrets` are the names of the Swarm's secrets. `applied` are the migrations that the
    database has, None if nobody knows. `socket_group` is the group of the engine's socket, `mtu`
    that of the overlay networks.
    """

    base: Base | None
    history: tuple[Record, ...]
    secrets: Mapping[str, str]
    applied: tuple[Revision, ...] | None
    socket_group: int
    mtu: int

    @classmethod
    def read(cls, target: Target) -> "Found":
        """Read it from the Swarm; raises Refused if the networks' packets are too large."""
        engine = target.engine
        return cls(Base.read(engine), tuple(releases.history(engine)),
                   secrets.secret_names(engine), schema.applied(engine),
                   facts.socket_group(target.machine, SOCKET),
                   packets.overlay_mtu(engine, target.fleet.members))

    @property
    def latest(self) -> Record | None:
        """The running release, or None before the first."""
        return self.history[0] if self.history else None

    @property
    def replicas(self) -> int:
        """The app's current number of tasks, or the default on a first deploy."""
        return self.latest.stack.replicas if self.latest else DEFAULT_REPLICAS


@dataclass(frozen=True)
class Running:
    """The running release, None before the first, and each service's hash as Swarm has it now."""

    release: Record | None
    specs: Mapping[str, str]

    @classmethod
    def read(cls, target: Target, release: Record | None) -> "Running":
        """Read the services from the Swarm."""
        return cls(release, services.spec_hashes(target.engine))

    def is_exactly(self, stack: Stack) -> bool:
        """Return whether Swarm holds exactly this stack, unchanged since it was proven."""
        return self.release is not None and self.release.content == stack.content \
            and self.specs == self.release.specs
