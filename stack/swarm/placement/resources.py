"""What tasks hold of a node: CPUs, memory, and ports that can't be shared."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from stack.engine.sizes import in_bytes

UNLIMITED = sys.maxsize


@dataclass(frozen=True)
class Resources:
    """CPUs, in billionths, and bytes of memory."""

    nano_cpus: int = 0
    memory: int = 0

    @classmethod
    def read(cls, given: Mapping[str, int] | None) -> "Resources":
        """Read the Engine API's resources; it leaves out zeros."""
        given = given or {}
        return cls(given.get("NanoCPUs") or 0, given.get("MemoryBytes") or 0)

    @classmethod
    def reserved(cls, service: Mapping[str, Any]) -> "Resources":
        """Read what one task of a stack file's service reserves; limits reserve nothing."""
        given = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
        return cls(int(Decimal(str(given.get("cpus", 0))) * 10**9),
                   in_bytes(str(given.get("memory", 0))))

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.nano_cpus + other.nano_cpus, self.memory + other.memory)

    def __sub__(self, other: "Resources") -> "Resources":
        """Return what is left, at least zero."""
        return Resources(max(0, self.nano_cpus - other.nano_cpus),
                         max(0, self.memory - other.memory))

    def __mul__(self, count: int) -> "Resources":
        return Resources(self.nano_cpus * count, self.memory * count)

    def __floordiv__(self, each: "Resources") -> int:
        """Return how many times another fits in."""
        pairs = ((self.nano_cpus, each.nano_cpus), (self.memory, each.memory))
        return min((have // want for have, want in pairs if want), default=UNLIMITED)

    def __str__(self) -> str:
        return f"{_number(self.memory / 2**20)} MiB, {_number(self.nano_cpus / 10**9)} CPUs"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Held:
    """What tasks hold of a node; a port is written 80/tcp."""

    resources: Resources = Resources()
    ports: frozenset[str] = frozenset()

    def __add__(self, other: "Held") -> "Held":
        return Held(self.resources + other.resources, self.ports | other.ports)


@dataclass(frozen=True)
class Room:
    """What is left of a node."""

    free: Resources
    ports: frozenset[str] = frozenset()

    def without(self, held: Held) -> "Room":
        return Room(self.free - held.resources, self.ports | held.ports)
