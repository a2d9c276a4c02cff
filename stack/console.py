"""Tell a person what is being done, what came of it and how long it took."""

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

# In a locale without "…", a question mark is better than a traceback.
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="replace")
OUT = Console(highlight=False, soft_wrap=True, emoji=False,
              width=None if sys.stdout.isatty() else 200)


class Step:
    """What a step does and finds; its outcome is printed as one line when it ends."""

    def __init__(self, name: str, status: Status) -> None:
        self.name = name
        self.outcome = "unchanged"
        self._status = status

    def doing(self, what: str) -> None:
        """Say that long work begins: in a spinner on a terminal, else in a line of its own."""
        self._status.update(escape(f"{self.name}: {what}"))
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
    _end(name, f"[{colour}]{escape(current.outcome)}[/{colour}]", begun)


def _end(name: str, outcome: str, begun: float) -> None:
    OUT.print(f"  {name:<14} {outcome} [dim]({time.monotonic() - begun:.1f} s)[/dim]")


def heading(text: str) -> None:
    """Print what the following steps belong to."""
    OUT.print(f"[bold]{escape(text)}[/bold]")


def say(text: str) -> None:
    """Print a plain line, without reading markup in it."""
    OUT.print(text, markup=False)


def block(lines: list[str]) -> None:
    """Print quoted output, such as a log's last lines, indented and unstyled."""
    for line in lines:
        say(f"    {line}")


def table(content: Table) -> None:
    """Print a table; off a terminal there is room for all of it."""
    OUT.print(content)


def confirm(question: str) -> bool:
    """Ask a yes-or-no question; without a terminal on both sides the answer is no."""
    if not (OUT.is_terminal and sys.stdin.isatty()):
        return False
    try:
        return OUT.input(f"{question} [y/N] ", markup=False).strip().lower() in {"y", "yes"}
    except EOFError:
        return False
