"""Kill a command at each of its steps, so that the next run has to make it good."""

import re

from tests.e2e.laptop import Laptop
from tests.lab import host

LOCKED = 7
# Seconds in which a lock has ended by itself: it lives on for 45 without its holder.
EXPIRED = 60
# A step's line. Deeper in is a migration's log, which is only told if that takes long.
STEP = re.compile("  [^ ]")
# What is told of a service whose update had to be helped on.
ANEW = "its update has begun anew"


def killed_at_every_step(laptop: Laptop, *arguments: str, awaited_locks: int = 0) -> list[str]:
    """Kill a command at each of its steps in turn, let the last one end, and name the steps.

    So many locks of commands that were killed end by themselves; to save time, the others are
    taken away.
    """
    seen: list[str] = []
    while (code := killed_somewhere_new(laptop, arguments, seen)) != 0:
        assert code is None or code == LOCKED, seen
        if code == LOCKED and awaited_locks:
            awaited_locks -= 1
            host.wait_until(lambda: laptop.fab("lock.status").stdout == "free\n", EXPIRED,
                            "end of the killed command's lock")
            # Else what follows would only show that a lock can be taken away.
            code = killed_somewhere_new(laptop, arguments, seen)
            assert code is None, seen
        elif code == LOCKED:
            freed = laptop.fab("lock.release --yes")
            assert freed.code == 0, freed.stdout + freed.stderr
    return seen


def killed_somewhere_new(laptop: Laptop, arguments: tuple[str, ...],
                         seen: list[str]) -> int | None:
    """Kill a command at its first step that no run before has printed; None if that was done.

    Without such a step, return its exit code.
    """
    with laptop.watching(*arguments) as run:
        if run.read_until(lambda line: STEP.match(line) is not None
                          and beginning(line) not in seen):
            seen.append(beginning(run.printed[-1]))
            run.kill()
            return None
        return run.end(timeout=60)


def beginning(line: str) -> str:
    """Return what a line of progress says of its step, without how it went."""
    name, _, told = line.strip().partition("  ")
    if told.endswith(ANEW):
        return ANEW
    return f"{name} …" if told.endswith("…") else name
