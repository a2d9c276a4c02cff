"""What the benchmarks share: when to measure, what to say of the computer, how to fail."""

import os
import time
from dataclasses import dataclass


class Failed(Exception):
    """Say why there is nothing to compare."""


@dataclass(frozen=True)
class Calm:
    """The load below which figures say something, and when they are taken anyway."""

    load: float
    deadline: float

    def wait(self) -> None:
        """Wait until nothing else is going on, but not for ever."""
        if os.getloadavg()[0] >= self.load:
            print(f"{loads()}: waiting until it is below {self.load:g}", flush=True)
        while os.getloadavg()[0] >= self.load and time.monotonic() < self.deadline:
            time.sleep(5)


def loads() -> str:
    """Return the load averages of this computer."""
    return "load " + " ".join(f"{load:.1f}" for load in os.getloadavg())
