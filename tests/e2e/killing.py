"""Kill a command at each of its steps, so that the next run has to make it good."""

from tests.e2e.laptop import Laptop

LOCKED = 7


def killed_at_every_step(laptop: Laptop, *arguments: str) -> list[str]:
    """Kill a command at each of its steps in turn, let the last one end, and name the steps.

    The lock of the deploy that was killed is taken from it, instead of waiting for its end.
    """
    seen: list[str] = []
    while (code := killed_somewhere_new(laptop, arguments, seen)) != 0:
        assert code is None or code == LOCKED, seen
        if code == LOCKED:
            freed = laptop.fab("lock.release --yes")
            assert freed.code == 0, freed.stdout + freed.stderr
    return seen


def killed_somewhere_new(laptop: Laptop, arguments: tuple[str, ...],
                         seen: list[str]) -> int | None:
    """Kill a command at its first line that no run before has printed; None if that was done.

    Without such a line, return its exit code.
    """
    with laptop.watching(*arguments) as run:
        if run.read_until(lambda line: line.startswith("  ") and beginning(line) not in seen):
            seen.append(beginning(run.printed[-1]))
            run.kill()
            return None
        return run.end(timeout=60)


def beginning(line: str) -> str:
    """Return what a line of progress says of its step, without how it went."""
    name, _, told = line.strip().partition("  ")
    return f"{name} …" if told.endswith("…") else name
