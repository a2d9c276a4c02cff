"""Let tests that measure time be alone, though others of the same run are in another process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(folder: Path, alone: bool) -> Iterator[None]:
    """Wait for whoever is alone, or until nobody else is there, and stay until the block ends.

    Everybody comes in by the gate, and who waits to be alone stands in it. The folder is the
    run's, for the two files whose locks these are.
    """
    with (folder / "gate").open("a") as gate, (folder / "room").open("a") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
