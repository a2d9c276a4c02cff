"""Remember failed changes, so that the next operator knows what was tried."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from stack import progress
from stack.engine.engine import Engine
from stack.engine.failures import EngineError
from stack.errors import OUTCOMES, MigrationFailed, OperatorError, RestoreFailed, UpdateFailed
from stack.state import lock
from stack.state.journal import Journal

LABEL = "tally.attempt"
KEPT = 10
# A refused command changed nothing: only its operator needs to know.
FAILED = {error.exit_code for error in (MigrationFailed, UpdateFailed, RestoreFailed)}


@dataclass(frozen=True)
class Attempt:
    """One failed change: its version, operator and outcome.

    It ended at `at` (Unix time) after `seconds`. `probe` is the site probe's result, if the
    change got that far.
    """

    version: str
    commit: str
    who: str
    at: float
    seconds: float
    outcome: str
    cause: str
    probe: Mapping[str, float] | None = None


@dataclass
class Change:
    """A change that is under way since `began` (Unix time), and the site probe's result so far."""

    began: float
    probe: Mapping[str, float] | None = None

    def keep_probe(self, met: Mapping[str, float]) -> None:
        """Keep the probe's result, for the record and for the command's report."""
        self.probe = met
        progress.fact("probe", met)


@contextmanager
def noted(engine: Engine, version: str, commit: str,
          began: float) -> Iterator[Change]:
    """Record a change that fails; `began` is in Unix time."""
    change = Change(began)
    try:
        yield change
    except OperatorError as error:
        if error.exit_code in FAILED:
            now = time.time()
            # The failure itself matters more than failing to record it.
            with suppress(EngineError):
                save(engine, Attempt(version, commit, lock.whoami(), now, round(now - began, 1),
                                     OUTCOMES[error.exit_code], error.cause,
                                     change.probe))
        raise


def save(engine: Engine, attempt: Attempt) -> None:
    """Save an attempt; keep only the last ten."""
    journal = _journal(engine)
    journal.add(attempt.at, "failed", asdict(attempt))
    journal.trim(KEPT)


def history(engine: Engine) -> list[Attempt]:
    """Return the recorded failed attempts, newest first."""
    return [entry.read(Attempt) for entry in _journal(engine).entries()]


def forget_all(engine: Engine) -> None:
    """Remove every attempt, after the stack itself was removed."""
    _journal(engine).clear()


def _journal(engine: Engine) -> Journal:
    return Journal(engine, LABEL, "attempt")
