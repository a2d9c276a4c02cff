"""Show the tasks during a wait: a table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Column, Table

from stack import console
from stack.console import cut
from stack.progress import HostNames
from stack.swarm.service_state import Progress, TaskLine

# Columns with their minimum widths, so that they don't change with each state.
COLUMNS = {"service": 0, "": 3, "node": 0, "tag": 0, "state": 9, "age": 6, "error": 0}
# The columns to shorten first when space is short.
LONG = {"node", "error"}
# How long a failure is shown.
RECENT = timedelta(minutes=1)
# The step, the counts, the column names, the number of hidden tasks, the cursor.
OTHER_LINES = 5
NO_ANSWER = "no answer from the engine"
Show = Callable[[Sequence[Progress]], None]


@contextmanager
def shown(host_names: HostNames) -> Iterator[Show]:
    """Yield a function that shows the services' progress; it clears a terminal at the end.

    Within a step, rich draws the table below the step's spinner, as one display.
    """
    if not console.OUT.is_interactive:
        yield PlainLines().show
        return
    with Live(indented(cut("waiting for tasks")), console=console.OUT, transient=True,
              auto_refresh=False) as display:
        tasks = TaskTable(host_names)
        yield lambda now: display.update(tasks.draw(now, datetime.now(UTC)), refresh=True)


def indented(*drawn: RenderableType) -> Padding:
    """Indent lines to stand below a step's spinner."""
    return Padding(Group(*drawn), (0, 0, 0, 2), expand=False)


def counts(now: Sequence[Progress]) -> str:
    """Count each service's running tasks; an existing service wants at least one."""
    return ", ".join(map(str, now)) if any(service.wanted for service in now) else NO_ANSWER


class PlainLines:
    """Print how many tasks run when that changes, at most once a second.

    When all of them run, the step's own line says so.
    """

    def __init__(self) -> None:
        self._said = ""
        self._silent_until = 0.0

    def show(self, now: Sequence[Progress]) -> None:
        if all(0 < service.wanted <= service.running for service in now):
            self._said = ""
        elif (text := counts(now)) != self._said and time.monotonic() >= self._silent_until:
            self._said, self._silent_until = text, time.monotonic() + 1
            console.say(f"  {'waiting':<14} {text} …")


class TaskTable:
    """Draw the tasks of one wait; node names are read once."""

    def __init__(self, host_names: HostNames) -> None:
        self._host_names = host_names
        self._names: Mapping[str, str] = {}
        # Services that had tasks to replace: their other tasks are marked new.
        self._replaced: set[str] = set()

    def draw(self, now: Sequence[Progress], at: datetime) -> RenderableType:
        """Return the counts and a line for each task, without old failures."""
        lines = [line for service in now for line in service.lines
                 if not line.broken or at - line.changed < RECENT]
        if not lines:
            return indented(cut(counts(now)))
        self._replaced |= {line.service for line in lines if not line.new}
        self._names = self._names or self._host_names()
        kept = most_telling(lines, max(1, console.OUT.height - OTHER_LINES))
        drawn: list[RenderableType] = [cut(counts(now)), self._table(kept, at)]
        if hidden := len(lines) - len(kept):
            drawn.append(cut(f"and {hidden} more", "dim"))
        return indented(*drawn)

    def _table(self, lines: Sequence[TaskLine], at: datetime) -> Table:
        table = Table(*(Column(cut(name), min_width=width, no_wrap=name not in LONG)
                        for name, width in COLUMNS.items()), box=None, pad_edge=False)
        for line in lines:
            mark = "old" if not line.new else "new" if line.service in self._replaced else ""
            colour = "red" if line.broken else "green" if line.state == "running" else "yellow"
            table.add_row(
                cut(line.service), cut(mark, "bold" if line.new else ""),
                cut(self._names.get(line.node, line.node[:12])), cut(line.tag),
                cut(line.state, colour), cut(age(at - line.created)), cut(line.error),
                style="" if line.new else "dim")
        return table


def most_telling(lines: Sequence[TaskLine], room: int) -> list[TaskLine]:
    """Return the lines that fit: failures first, running tasks last."""
    def rank(index: int) -> int:
        return 0 if lines[index].broken else 2 if lines[index].state == "running" else 1
    kept = sorted(range(len(lines)), key=rank)[:room]
    return [lines[index] for index in sorted(kept)]


def age(span: timedelta) -> str:
    """Return a time in its largest whole unit; never negative, even if clocks differ."""
    seconds = max(0, int(span.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
