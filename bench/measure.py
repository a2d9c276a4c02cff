"""What the benchmarks share: when to measure, what to say of the computer, how to fail."""

import argparse
import os
import time
from dataclasses import dataclass
from typing import Self


class Failed(Exception):
    """Say why there is nothing to compare."""


@dataclass(frozen=True)
class Calm:
    """The load below which figures say something, and when they are taken anyway."""

    load: float
    deadline: float

    @classmethod
    def chosen(cls, given: argparse.Namespace) -> Self:
        """Take what the command line says."""
        return cls(given.load, time.monotonic() + given.patience * 60)

    def wait(self) -> None:
        """Wait until nothing else is going on, but not for ever."""
        if os.getloadavg()[0] >= self.load:
            print(f"{loads()}: waiting until it is below {self.load:g}", flush=True)
        while os.getloadavg()[0] >= self.load and time.monotonic() < self.deadline:
            time.sleep(5)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--load", type=float, default=4.0, metavar="L",
                      help="begin when this computer's load is below it (default: 4)")
    made.add_argument("--patience", type=float, default=40.0, metavar="MINUTES",
                      help="begin anyway after this time (default: 40)")
    return made


def loads() -> str:
    """Return the load averages of this computer."""
    return "load " + " ".join(f"{load:.1f}" for load in os.getloadavg())
