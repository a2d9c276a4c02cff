"""Give each running lab a number, from which all its names and addresses are derived."""

from __future__ import annotations

import fcntl
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.rootfs import cache_directory

# Machines use the documentation range (RFC 5737), 29 per lab; visitors in tests use the
# benchmarking range (RFC 2544). Neither is routed outside.
MACHINES = list(ipaddress.IPv4Network("198.51.100.0/24").subnets(new_prefix=27))
CLIENTS = list(ipaddress.IPv4Network("198.18.0.0/15").subnets(new_prefix=24))
# Not in the cache directory: bridges and addresses belong to the whole host.
LOCKS = Path("/run/tally-lab")


@dataclass(frozen=True)
class Slot:
    """One lab's number, held for as long as its lock file is open."""

    number: int
    lock: TextIOWrapper

    @property
    def directory(self) -> Path:
        return _directory(self.number)

    @property
    def bridge(self) -> str:
        return f"tally-lab{self.number}"

    @property
    def network(self) -> ipaddress.IPv4Network:
        return MACHINES[self.number]

    @property
    def clients(self) -> ipaddress.IPv4Network:
        return CLIENTS[self.number]

    def release(self) -> None:
        """Free this number for another lab."""
        self.lock.close()


def claim() -> Slot:
    """Take the first number that no running process holds; raise LabError if there is none."""
    for number in range(len(MACHINES)):
        if (slot := _take(number)) is not None:
            return slot
    raise LabError(f"{len(MACHINES)} labs are running on this host: end one first")


def abandoned() -> Iterator[Slot]:
    """Take, one by one, the numbers whose owners have died and left files behind."""
    for number in range(len(MACHINES)):
        if _directory(number).exists() and (slot := _take(number)) is not None:
            yield slot
            slot.release()


def _take(number: int) -> Slot | None:
    """Lock a number, unless a running process holds it.

    The kernel releases a file lock when its process ends. So the number of a killed owner is free
    at once, and a reused PID can't be mistaken for a running owner.
    """
    LOCKS.mkdir(exist_ok=True)
    lock = (LOCKS / f"{number}.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return Slot(number, lock)


def _directory(number: int) -> Path:
    return cache_directory() / "labs" / str(number)
