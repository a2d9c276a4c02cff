"""Let tests that measure time be alone on this host, though others run in a second process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Any two files that every process has: only their locks are used.
GATE, ROOM = Path(__file__), Path(__file__).with_name("conftest.py")


@contextmanager
def turn(alone: bool, gate: Path = GATE, room: Path = ROOM) -> Iterator[None]:
    """Wait for whoever is alone, or until nobody else is there; keep the place meanwhile.

    Who wants to be alone holds the gate, so that no further one comes in before.
    """
    with gate.open() as entering, room.open() as present:
        fcntl.flock(entering, fcntl.LOCK_EX)
        fcntl.flock(present, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(entering, fcntl.LOCK_UN)
        yield
