"""Where a release goes: a Swarm, and the store that keeps its images."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from stack.images import store
from stack.images.store import Store
from stack.swarm.swarm import Swarm


@dataclass(frozen=True)
class Target(Swarm):
    """A Swarm and its image store."""

    @cached_property
    def store(self) -> Store:
        """The image store; raises Refused if it is unknown."""
        return store.of(self.fleet, self.engine, self.machine)

    @cached_property
    def chosen(self) -> Mapping[str, str]:
        """The images that the inventory sets instead of our own builds, by service.

        Pinned by digest; raises Refused if an image can't be found.
        """
        named = self.fleet.inventory.images if self.fleet.inventory else {}
        return {service: self.store.pinned(image) for service, image in named.items()}
