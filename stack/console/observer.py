"""Show on the console what the rooms report."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.status import Status

from stack import console
from stack.console import spinning, task_table
from stack.console.task_table import Show
from stack.progress import Ended, HostNames


class ConsoleSpinner:
    """A spinner on a terminal; elsewhere long work is a line of its own."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def doing(self, name: str, place: str, what: str) -> None:
        where = f"{place}  " if place else ""
        self._status.update(spinning(f"{name}: {where}{what}"))
        if not console.OUT.is_interactive:
            console.say(f"  {name:<14} {where}{what} …")

    def stop(self) -> None:
        self._status.stop()


class ConsoleObserver:
    """The observer that shows everything on the console."""

    @contextmanager
    def spinner(self, text: str) -> Iterator[ConsoleSpinner]:
        with console.OUT.status(spinning(text)) as status:
            yield ConsoleSpinner(status)

    def ended(self, step: Ended) -> None:
        console.end(step)

    def heading(self, text: str) -> None:
        console.heading(text)

    def line(self, text: str) -> None:
        console.say(text)

    def quote(self, lines: Sequence[str]) -> None:
        console.block(lines)

    def tasks(self, host_names: HostNames) -> AbstractContextManager[Show]:
        return task_table.shown(host_names)

    def fact(self, name: str, value: Any) -> None:
        console.fact(name, value)

    def confirm(self, question: str) -> bool:
        return console.confirm(question)
