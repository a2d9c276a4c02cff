"""Show the tasks while somebody waits for them: a table on a terminal, else plain lines."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import docker
import requests
from docker.errors import DockerException
from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Column, Table

from stack import console
from stack.console import cut
from stack.progress import Progress, TaskLine

# With their least widths, so that they don't change with each state.
COLUMNS = {"service": 0, "": 3, "node": 0, "tag": 0, "state": 9, "age": 6, "error": 0}
# What there is no room for is left out of these first.
LONG = {"node", "error"}
# For so long a failure is news.
RECENT = timedelta(minutes=1)
# The step, the counts, the columns' names, how many tasks are left out, the cursor.
OTHER_LINES = 5
NO_ANSWER = "the engine doesn't answer just now"
Show = Callable[[Sequence[Progress]], None]


@contextmanager
def shown(client: docker.DockerClient) -> Iterator[Show]:
    """Yield what shows how far the services are; a terminal is wiped at the end.

    Within a step, rich draws it below the step's spinner, as one display.
    """
    if not console.OUT.is_interactive:
        yield PlainLines().show
        return
    with Live(indented(cut("waiting for the tasks")), console=console.OUT, transient=True,
              auto_refresh=False) as display:
        tasks = TaskTable(client)
        yield lambda now: display.update(tasks.draw(now, datetime.now(UTC)), refresh=True)


def indented(*drawn: RenderableType) -> Padding:
    """Return lines as they stand below a step's spinner."""
    return Padding(Group(*drawn), (0, 0, 0, 2), expand=False)


def counts(now: Sequence[Progress]) -> str:
    """Say how many tasks of each service run; every service that is there wants one at least."""
    return ", ".join(map(str, now)) if any(service.wanted for service in now) else NO_ANSWER


class PlainLines:
    """Tell a log how many tasks run, when that changes, and at most once a second.

    That all of them run is left to the line of the step.
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
    """Draw the tasks of one wait; the nodes are asked for their names once."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._names: dict[str, str] = {}
        # Services of which there were tasks to replace: of these, the others are new.
        self._replaced: set[str] = set()

    def draw(self, now: Sequence[Progress], at: datetime) -> RenderableType:
        """Return the counts and a line for each task that isn't old news."""
        lines = [line for service in now for line in service.lines
                 if not line.broken or at - line.changed < RECENT]
        if not lines:
            return indented(cut(counts(now)))
        self._replaced |= {line.service for line in lines if not line.new}
        self._names = self._names or host_names(self._client)
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


def host_names(client: docker.DockerClient) -> dict[str, str]:
    """Return the host name of each node's id, or nothing if the engine fails just now."""
    try:
        return {node["ID"]: node["Description"].get("Hostname", "") for node in client.api.nodes()}
    except (DockerException, requests.RequestException):
        return {}


def most_telling(lines: Sequence[TaskLine], room: int) -> list[TaskLine]:
    """Return as many lines as there is room for: first failures, last what just runs."""
    def rank(index: int) -> int:
        return 0 if lines[index].broken else 2 if lines[index].state == "running" else 1
    kept = sorted(range(len(lines)), key=rank)[:room]
    return [lines[index] for index in sorted(kept)]


def age(span: timedelta) -> str:
    """Return a time in its largest whole unit; clocks that differ make nothing negative."""
    seconds = max(0, int(span.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
