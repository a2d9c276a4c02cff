"""Give each running lab a number of its own, from which all its names and addresses follow."""

from __future__ import annotations

import fcntl
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.rootfs import cache_directory

# Machines live in the documentation range (RFC 5737), 29 a lab; the addresses that tests visit
# from in the benchmarking range (RFC 2544). Neither is ever routed outside.
MACHINES = list(ipaddress.IPv4Network("198.51.100.0/24").subnets(new_prefix=27))
CLIENTS = list(ipaddress.IPv4Network("198.18.0.0/15").subnets(new_prefix=24))
# Not in the cache directory: bridges and addresses are the whole host's, whatever the cache.
LOCKS = Path("/run/tally-lab")


@dataclass(frozen=True)
class Slot:
    """Hold one lab's number for as long as its lock file is open."""

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
        """Let another lab have this number."""
        self.lock.close()


def claim() -> Slot:
    """Take the first number that no living process holds; raise LabError if there is none."""
    for number in range(len(MACHINES)):
        if (slot := _take(number)) is not None:
            return slot
    raise LabError(f"{len(MACHINES)} labs are running on this host: end one first")


def abandoned() -> Iterator[Slot]:
    """Take, one after the other, the numbers whose owners died and left files behind."""
    for number in range(len(MACHINES)):
        if _directory(number).exists() and (slot := _take(number)) is not None:
            yield slot
            slot.release()


def _take(number: int) -> Slot | None:
    """Lock a number, unless a living process holds it.

    The kernel drops a file lock with its process, so that a number whose owner was killed is
    free at once, and nobody mistakes a reused process id for a living owner.
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
