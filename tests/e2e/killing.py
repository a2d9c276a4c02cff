"""Kill a command at each of its steps, so that the next run has to complete it."""

import re

from tests.e2e.laptop import Laptop
from tests.lab import host

LOCKED = 7
# Seconds after which a lock has certainly expired: it lasts 45 without its holder.
EXPIRED = 60
# A step's line. A migration's log, printed only if it takes long, is indented further.
STEP = re.compile("  [^ ]")
# What a step says about a service whose stuck update was restarted.
ANEW = "restarted the update"


def killed_at_every_step(laptop: Laptop, *arguments: str, awaited_locks: int = 0) -> list[str]:
    """Kill a command at each of its steps in turn, let the last run end, and return the steps.

    `awaited_locks` of the killed commands' locks expire by themselves; the others are released, to
    save time.
    """
    seen: list[str] = []
    while (code := killed_somewhere_new(laptop, arguments, seen)) != 0:
        assert code is None or code == LOCKED, seen
        if code == LOCKED and awaited_locks:
            awaited_locks -= 1
            host.wait_until(lambda: laptop.fab("lock.status").stdout == "free\n", EXPIRED,
                            "end of the killed command's lock")
            # Otherwise the next run would only show that a lock can be released.
            code = killed_somewhere_new(laptop, arguments, seen)
            assert code is None, seen
        elif code == LOCKED:
            freed = laptop.fab("lock.release --yes")
            assert freed.code == 0, freed.stdout + freed.stderr
    return seen


def killed_somewhere_new(laptop: Laptop, arguments: tuple[str, ...],
                         seen: list[str]) -> int | None:
    """Kill a command at the first step that no earlier run has printed, and return None.

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
    """Return the step that a progress line names, without its result."""
    name, _, told = line.strip().partition("  ")
    if told.endswith(ANEW):
        return ANEW
    return f"{name} …" if told.endswith("…") else name
