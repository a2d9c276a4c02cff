"""Wait until something is so, or until a deadline has passed."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(ask: Callable[[], T], within: float, done: Callable[[T], bool] = bool,
          every: float = 0.3) -> T:
    """Ask until the answer will do, or until `within` seconds have passed; return the last answer.

    An answer will do if it is true, or as `done` decides. `every` is the pause between two
    questions, in seconds. An exception ends the wait.
    """
    deadline = time.monotonic() + within
    while not done(answer := ask()) and time.monotonic() <= deadline:
        time.sleep(every)
    return answer
