"""A test that measures time has this host for itself, and isn't put off for ever."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from tests.turns import turn

pytestmark = pytest.mark.unit


class Test:
    """A test that runs in a thread once it is its turn, and ends when it is told to."""

    __test__ = False

    def __init__(self, alone: bool) -> None:
        self.alone, self._running, self.end = alone, Event(), Event()

    def run(self, folder: Path) -> None:
        with turn(folder, self.alone):
            self._running.set()
            self.end.wait(30)

    def runs(self, within: float = 20) -> bool:
        return self._running.wait(within)

    def waits(self) -> bool:
        return not self.runs(within=0.5)


def test_one_that_is_alone_waits_for_all_and_those_after_it_wait_for_it(tmp_path: Path) -> None:
    first, second, alone, later = (Test(False), Test(False), Test(True), Test(False))
    with ThreadPoolExecutor(4) as pool:
        pool.submit(first.run, tmp_path)
        pool.submit(second.run, tmp_path)
        assert first.runs() and second.runs()
        pool.submit(alone.run, tmp_path)
        first.end.set()
        assert alone.waits()
        pool.submit(later.run, tmp_path)
        assert later.waits()
        second.end.set()
        assert alone.runs() and later.waits()
        alone.end.set()
        assert later.runs()
        later.end.set()
