"""Report steps, findings and questions to an observer, so that the rooms don't print.

The commands make the console the observer; without one, nothing is shown and every question is
answered with no.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from stack.errors import OperatorError, raise_all

UNCHANGED = "unchanged"
FAILED = "failed"
# Shows the services' progress (swarm.service_state.Progress), which this module is too low to know.
ShowTasks = Callable[[Sequence[Any]], None]
# Returns each node's host name by its id.
HostNames = Callable[[], Mapping[str, str]]


@dataclass(frozen=True)
class Ended:
    """A step that has ended: its outcome, and how long it took in seconds.

    `place` is the machine, or "" if the step isn't about one of several.
    """

    name: str
    place: str
    outcome: str
    seconds: float


class Spinner(Protocol):
    """What is shown while a step runs."""

    def doing(self, name: str, place: str, what: str) -> None:
        """Show that long work begins."""

    def stop(self) -> None:
        """Show nothing more."""


class Observer(Protocol):
    """Whoever shows people what is being done."""

    def spinner(self, text: str) -> AbstractContextManager[Spinner]:
        """Show that something runs, until the block ends."""

    def ended(self, step: Ended) -> None:
        """Show a step's outcome."""

    def heading(self, text: str) -> None:
        """Show what the following steps belong to."""

    def line(self, text: str) -> None:
        """Show a plain line."""

    def quote(self, lines: Sequence[str]) -> None:
        """Show output of something else, such as the end of a log."""

    def tasks(self, host_names: HostNames) -> AbstractContextManager[ShowTasks]:
        """Show tasks until the block ends."""

    def fact(self, name: str, value: Any) -> None:
        """Keep a fact for the command's report."""

    def confirm(self, question: str) -> bool:
        """Ask the operator a yes-or-no question."""


class NoSpinner:
    """A spinner that nobody sees."""

    def doing(self, name: str, place: str, what: str) -> None:
        pass

    def stop(self) -> None:
        pass


class Nobody:
    """The observer of a program that shows nothing."""

    def spinner(self, text: str) -> AbstractContextManager[Spinner]:
        return nullcontext(NoSpinner())

    def ended(self, step: Ended) -> None:
        pass

    def heading(self, text: str) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def quote(self, lines: Sequence[str]) -> None:
        pass

    def tasks(self, host_names: HostNames) -> AbstractContextManager[ShowTasks]:
        return nullcontext(lambda now: None)

    def fact(self, name: str, value: Any) -> None:
        pass

    def confirm(self, question: str) -> bool:
        return False


_observer: Observer = Nobody()


def observe(observer: Observer) -> None:
    """Report to this observer from now on."""
    global _observer
    _observer = observer


def heading(text: str) -> None:
    """Say what the following steps belong to."""
    _observer.heading(text)


def line(text: str) -> None:
    """Say something in a plain line."""
    _observer.line(text)


def note(text: str, name: str = "note") -> None:
    """Say something in a line among the steps' own."""
    _observer.line(f"  {name:<14} {text}")


def quote(lines: Sequence[str]) -> None:
    """Quote output of something else, such as the end of a log."""
    _observer.quote(lines)


def tasks(host_names: HostNames) -> AbstractContextManager[ShowTasks]:
    """Show tasks until the block ends."""
    return _observer.tasks(host_names)


def fact(name: str, value: Any) -> None:
    """Keep a fact for the command's report."""
    _observer.fact(name, value)


def confirm(question: str) -> bool:
    """Ask the operator a yes-or-no question; the answer is no where nobody can be asked."""
    return _observer.confirm(question)


def spinner(text: str) -> AbstractContextManager[Spinner]:
    """Show that something runs, until the block ends."""
    return _observer.spinner(text)


class Step:
    """What a step does and finds; its outcome is shown when it ends."""

    def __init__(self, name: str, spinner: Spinner, place: str = "") -> None:
        self.name = name
        self.outcome = UNCHANGED
        self._place = place
        self._spinner = spinner
        self._begun = time.monotonic()

    def doing(self, what: str) -> None:
        """Say that long work begins."""
        self._spinner.doing(self.name, self._place, what)

    def changed(self, outcome: str) -> None:
        """Say what the step did; a step that says nothing was unchanged."""
        self.outcome = outcome

    found = changed

    def end(self) -> None:
        """Report the outcome."""
        _observer.ended(Ended(self.name, self._place, self.outcome,
                              time.monotonic() - self._begun))


def unchanged(name: str) -> None:
    """Report a step for which there is nothing to do."""
    _observer.ended(Ended(name, "", UNCHANGED, 0.0))


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Report a step: its name, its outcome, its seconds."""
    with spinner(f"{name}: checking") as shown:
        current = Step(name, shown)
        try:
            yield current
        except BaseException:
            shown.stop()
            current.changed(FAILED)
            current.end()
            raise
    current.end()


class Named(Protocol):
    """What a step can be about."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)
R = TypeVar("R")


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
    with spinner(f"{name}: checking") as shown:
        whole, steps = Step(name, shown), [Step(name, shown, place.name) for place in places]
        try:
            running = [pool.submit(_work, work, place, current)
                       for place, current in zip(places, steps)]
            results = [each.result() for each in running]
        finally:
            # After Ctrl-C nobody waits here: closing the machines' connections ends the rest.
            pool.shutdown(wait=False, cancel_futures=True)
    errors = [result for result in results if isinstance(result, OperatorError)]
    quiet = [each for each in steps if each.outcome == UNCHANGED]
    for each in [whole] if len(quiet) == len(steps) and not errors else quiet:
        each.end()
    raise_all(errors)
    return [result for result in results if not isinstance(result, OperatorError)]


def _work(work: Callable[[N, Step], R], place: N, current: Step) -> R | OperatorError:
    """Do the work on one machine; an operator's error is a result like any other."""
    try:
        result = work(place, current)
    except OperatorError as error:
        current.changed(FAILED)
        current.end()
        return error
    if current.outcome != UNCHANGED:
        current.end()
    return result
