"""End a command with one line when the Docker Engine fails in the middle."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from stack.engine.failures import ending_the_command
from stack.errors import INTERRUPTED

P = ParamSpec("P")
R = TypeVar("R")


def in_one_line(command: Callable[P, R]) -> Callable[P, R]:
    """Let an engine that fails in the middle end the command with one line."""
    @wraps(command)
    def reported(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with ending_the_command():
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted: run the same command again\n")
            raise SystemExit(INTERRUPTED) from None
    return reported
