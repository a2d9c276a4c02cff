"""Show people what is being done, and ask them."""

import io
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from stack.progress import FAILED, UNCHANGED, Ended

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
# The finished steps, and other facts for the report.
ENDED: list[dict[str, Any]] = []
FACTS: dict[str, Any] = {}


def fact(name: str, value: Any) -> None:
    """Keep a fact for the report that --json prints at the end."""
    FACTS[name] = value


def leave_stdout() -> None:
    """Print to stderr from now on: stdout belongs to a report for programs."""
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


def end(step: Ended) -> None:
    """Print a step's line, and keep it for the report."""
    ENDED.append({"name": step.name, "place": step.place, "outcome": step.outcome,
                  "seconds": round(step.seconds, 1)})
    colour = {FAILED: "red", UNCHANGED: "dim"}.get(step.outcome, "green")
    place = f"{step.place}  " if step.place else ""
    OUT.print(f"  {step.name:<14} {escape(place)}[{colour}]{escape(step.outcome)}[/{colour}] "
              f"[dim]({step.seconds:.1f} s)[/dim]")


def heading(text: str) -> None:
    """Print what the following steps belong to."""
    OUT.print(f"[bold]{escape(text)}[/bold]")


def say(text: str) -> None:
    """Print a plain line, without reading markup in it."""
    OUT.print(text, markup=False)


def block(lines: Sequence[str]) -> None:
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
