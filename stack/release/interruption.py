"""Report an update that was interrupted, lost its lock, or could not be recorded."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stack import progress
from stack.engine.failures import EngineError
from stack.errors import INTERRUPTED, Locked, OperatorError, RestoreFailed
from stack.state.lock import Lock

# The exit codes of a command ended by Ctrl-C, SIGHUP or SIGTERM.
INTERRUPTIONS = {INTERRUPTED, 129, 143}


def require_still(held: Lock, again: str) -> None:
    """Raise RestoreFailed if the lock, or contact with the Swarm, is lost during the update.

    `again` is the command to run next.
    """
    try:
        held.require()
    except Locked as error:
        raise RestoreFailed(f"during the update, {error.cause}",
                            f"./fab status, then {again}") from error
    except EngineError as error:
        raise RestoreFailed("lost contact with the Swarm during the update; it continues on its "
                            "own if it can",
                            f"./fab status when it answers, then {again}") from error


@contextmanager
def reporting_interruption(remedy: str) -> Iterator[None]:
    """Say what to do after an interruption: Swarm continues the update by itself.

    Anything else that ends an update half-way, such as a bug or a closed output, also
    needs a person.
    """
    try:
        yield
    except OperatorError:
        raise
    except (KeyboardInterrupt, SystemExit) as interruption:
        code = interruption.code if isinstance(interruption, SystemExit) else INTERRUPTED
        with suppress(OSError, SystemExit):
            progress.line(f"interrupted in the middle of the update: {remedy}")
        raise SystemExit(code if code in INTERRUPTIONS else RestoreFailed.exit_code) \
            from interruption
    except Exception as bug:
        traceback.print_exc()
        raise RestoreFailed(f"the update hit a bug: {type(bug).__name__}: {bug}",
                            remedy) from bug


@contextmanager
def recording(version: str, remedy: str) -> Iterator[None]:
    """Raise RestoreFailed with the remedy if the engine fails; the release keeps running."""
    try:
        yield
    except EngineError as error:
        raise RestoreFailed(f"{version} is running and proven, but could not be recorded "
                            f"({error})", remedy) from error
