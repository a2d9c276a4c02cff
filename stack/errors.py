"""Errors that end a command.

Each is one line for the operator: the cause and the next command. Fabric prints it and exits with
its code. Tracebacks are for bugs.
"""

from collections.abc import Sequence

from invoke.exceptions import Exit

# The exit code of a command that was ended by Ctrl-C.
INTERRUPTED = 130
# What each exit code means: the table in README.md.
OUTCOMES = {0: "proven", 1: "refused", 3: "migration failed", 4: "restored", 5: "broken",
            7: "locked"}


class OperatorError(Exit):
    """End the command with one line; `remedy` is what to type next.

    The exit code is the class's: the table of codes is in README.md.
    """

    exit_code: int = 1

    def __init__(self, cause: str, remedy: str = "") -> None:
        self.cause = " ".join(cause.split())
        line = f"{self.cause}: {remedy}" if remedy else self.cause
        super().__init__(line, self.exit_code)

    def __str__(self) -> str:
        return str(self.message)


class Refused(OperatorError):
    """Wrong input, or a check before the first change failed: nothing was changed."""

    exit_code = 1


class MigrationFailed(OperatorError):
    """The migration failed; the running release is untouched."""

    exit_code = 3


class UpdateFailed(OperatorError):
    """The update failed; the previous release is restored and proven."""

    exit_code = 4


class RestoreFailed(OperatorError):
    """The update failed and so did the restore: a person is needed."""

    exit_code = 5


class Locked(OperatorError):
    """Another command holds the lock; nothing was changed."""

    exit_code = 7


class Several(OperatorError):
    """Several machines or checks failed: a line for each, and the code of the gravest."""

    def __init__(self, errors: Sequence[OperatorError]) -> None:
        gravest = max(errors, key=lambda error: error.exit_code)
        self.exit_code = gravest.exit_code
        super().__init__(gravest.cause)
        self.message = "\n".join(str(error) for error in errors)


def raise_all(errors: Sequence[OperatorError]) -> None:
    """Raise one error as it is, and several as one; without any, return."""
    if errors:
        raise errors[0] if len(errors) == 1 else Several(errors)
