"""Tell a person what is being done, what came of it and how long it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

OUT = Console(highlight=False, soft_wrap=True)


class Step:
    """What a step does and finds; its outcome is printed as one line when it ends."""

    def __init__(self, name: str, status: Status) -> None:
        self.name = name
        self.outcome = "unchanged"
        self._status = status

    def doing(self, what: str) -> None:
        """Say that long work begins: in a spinner on a terminal, else in a line of its own."""
        self._status.update(f"{self.name}: {what}")
        if not OUT.is_terminal:
            say(f"  {self.name:<14} {what} …")

    def changed(self, outcome: str) -> None:
        """Say what the step did; a step that says nothing was unchanged."""
        self.outcome = outcome

    found = changed


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Print one line for a step: its name, its outcome, its seconds."""
    begun = time.monotonic()
    try:
        with OUT.status(f"{name}: checking") as status:
            current = Step(name, status)
            yield current
    except BaseException:
        _end(name, "[red]failed[/red]", begun)
        raise
    colour = "dim" if current.outcome == "unchanged" else "green"
    _end(name, f"[{colour}]{current.outcome}[/{colour}]", begun)


def _end(name: str, outcome: str, begun: float) -> None:
    OUT.print(f"  {name:<14} {outcome} [dim]({time.monotonic() - begun:.1f} s)[/dim]")


def heading(text: str) -> None:
    """Print what the following steps belong to."""
    OUT.print(f"[bold]{text}[/bold]")


def say(text: str) -> None:
    """Print a plain line, without reading markup in it."""
    OUT.print(text, markup=False)


def block(lines: list[str]) -> None:
    """Print quoted output, such as a log's last lines, indented and unstyled."""
    for line in lines:
        say(f"    {line}")


def confirm(question: str) -> bool:
    """Ask a yes-or-no question; without a terminal the answer is no."""
    if not OUT.is_terminal:
        return False
    return OUT.input(f"{question} [y/N] ", markup=False).strip().lower() in {"y", "yes"}
