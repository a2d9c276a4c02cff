"""A test that measures time has this host to itself, and doesn't wait forever."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from tests.tooling.turns import turn

pytestmark = pytest.mark.unit


class Test:
    """A test that runs in a thread when its turn comes, until `end` is set."""

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


def test_a_test_alone_waits_for_running_tests_and_later_ones_wait(tmp_path: Path) -> None:
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
