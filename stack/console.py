"""Tell a person what is being done, what came of it and how long it took."""

import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from rich.console import Console, Group
from rich.markup import escape
from rich.status import Status
from rich.table import Table
from rich.text import Text

from stack.errors import OperatorError, raise_all

# In a locale without "…", a question mark is better than a traceback.
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="replace")


def _console(*, stderr: bool = False) -> Console:
    """Return a console as wide as its terminal; elsewhere there is room for any table.

    Nothing moves there either, also where FORCE_COLOR has rich take a log for a terminal.
    """
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, soft_wrap=True, emoji=False,
                   width=None if terminal else 200, force_interactive=None if terminal else False)


OUT = _console()
# The steps that have ended, and what else a report should tell.
ENDED: list[dict[str, Any]] = []
FACTS: dict[str, Any] = {}


def fact(name: str, value: Any) -> None:
    """Keep something for the report that --json prints at the end."""
    FACTS[name] = value


def leave_stdout() -> None:
    """Tell people on stderr from now on: stdout belongs to a report for programs."""
    global OUT
    OUT = _console(stderr=True)


def cut(text: str, style: str = "") -> Text:
    """Return one line of a live display; what there is no room for is left out.

    A line that the terminal itself wraps is one more than rich knows of and wipes.
    """
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def spinning(text: str) -> Group:
    """Return what a spinner says; rich would join a bare Text to it, and wrap both."""
    return Group(cut(text))


class Named(Protocol):
    """What a line of progress can be about."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)
R = TypeVar("R")


class Step:
    """What a step does and finds; its outcome is printed as one line when it ends."""

    def __init__(self, name: str, status: Status, place: str = "") -> None:
        self.name = name
        self.outcome = "unchanged"
        self._place = f"{place}  " if place else ""
        self._status = status
        self._begun = time.monotonic()

    def doing(self, what: str) -> None:
        """Say that long work begins: in a spinner on a terminal, else in a line of its own."""
        self._status.update(spinning(f"{self.name}: {self._place}{what}"))
        if not OUT.is_interactive:
            say(f"  {self.name:<14} {self._place}{what} …")

    def changed(self, outcome: str) -> None:
        """Say what the step did; a step that says nothing was unchanged."""
        self.outcome = outcome

    found = changed

    def end(self, outcome: str = "") -> None:
        """Print the step's line."""
        seconds = time.monotonic() - self._begun
        ENDED.append({"name": self.name, "place": self._place.strip(),
                      "outcome": outcome or self.outcome, "seconds": round(seconds, 1)})
        colour = "red" if outcome else "dim" if self.outcome == "unchanged" else "green"
        text = escape(outcome or self.outcome)
        OUT.print(f"  {self.name:<14} {escape(self._place)}[{colour}]{text}[/{colour}] "
                  f"[dim]({seconds:.1f} s)[/dim]")


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Print one line for a step: its name, its outcome, its seconds."""
    with OUT.status(spinning(f"{name}: checking")) as status:
        current = Step(name, status)
        try:
            yield current
        except BaseException:
            status.stop()
            current.end("failed")
            raise
    current.end()


def together(name: str, places: Sequence[N], work: Callable[[N, Step], R], *,
             alone: bool = False) -> list[R]:
    """Do a step on several machines side by side and return what came of it on each.

    What was unchanged everywhere is one line; otherwise each machine has its own, unless
    there is just this one. Raises every machine's error at once, after all have ended.
    """
    if alone:
        with step(name) as current:
            return [work(places[0], current)]
    pool = ThreadPoolExecutor(len(places) or 1)
    with OUT.status(spinning(f"{name}: checking")) as status:
        whole, steps = Step(name, status), [Step(name, status, place.name) for place in places]
        try:
            running = [pool.submit(_work, work, place, current)
                       for place, current in zip(places, steps)]
            results = [each.result() for each in running]
        finally:
            # After Ctrl-C nobody waits here: closing the machines' connections ends the rest.
            pool.shutdown(wait=False, cancel_futures=True)
    errors = [result for result in results if isinstance(result, OperatorError)]
    quiet = [each for each in steps if each.outcome == "unchanged"]
    for each in [whole] if len(quiet) == len(steps) and not errors else quiet:
        each.end()
    raise_all(errors)
    return [result for result in results if not isinstance(result, OperatorError)]


def _work(work: Callable[[N, Step], R], place: N, current: Step) -> R | OperatorError:
    """Do the work on one machine; an operator's error is a result like any other."""
    try:
        result = work(place, current)
    except OperatorError as error:
        current.changed("failed")
        current.end("failed")
        return error
    if current.outcome != "unchanged":
        current.end()
    return result


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
