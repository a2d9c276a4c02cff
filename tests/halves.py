"""Run the tests in two processes side by side, if pytest is told to use two.

Both take about equally long. Each shares its machines from one test to the next, and tears down
what it has made when the run ends, in whatever way.
"""

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests.turns import turn

# Tests on several machines are one half, all others the other.
SEVERAL = "test_9_swarm"
FOLDER = "halves"
# A file that each half's process keeps locked, named by its id.
PRESENCE = ".pid"
ENDING = (signal.SIGINT, signal.SIGTERM)


def divide(config: pytest.Config) -> None:
    """Give this process its part, if it runs one half or has two others do it."""
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Half(Path(config.workerinput[FOLDER])))
    elif config.getoption("numprocesses", None):
        config.pluginmanager.register(Both())


def end_once() -> None:
    """Begin to tear down at the first Ctrl-C or SIGTERM, and let no further one disturb that."""
    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt
    for each in ENDING:
        signal.signal(each, interrupt)


class Halves(LoadScopeScheduling):
    """Give each test to its half."""

    def _split_scope(self, nodeid: str) -> str:
        return "several" if SEVERAL in nodeid.split("/") else "others"


class Half:
    """Run one half: give way to tests that are alone, and say until when this process is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The lock goes with the process, however that ends.
        self._presence = (folder / f"{os.getpid()}{PRESENCE}").open("w")
        fcntl.flock(self._presence, fcntl.LOCK_EX)
        end_once()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Wait before the test's own time limit begins."""
        with turn(self._folder, item.get_closest_marker("alone") is not None):
            return (yield)

    def pytest_unconfigure(self) -> None:
        self._presence.close()


class Both:
    """Have both halves run; end them in good order, and wait for their end.

    xdist gives them ten seconds; a half may have a Swarm to take down.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tally-tests-"))
        end_once()

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Producer) -> Halves:
        return Halves(config, log)

    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput[FOLDER] = str(self._folder)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        early = exitstatus in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR}
        present = [file for file in self._folder.glob(f"*{PRESENCE}") if is_locked(file)]
        for half in present if early else []:
            # Where a terminal's Ctrl-C has told it already, it takes no notice.
            os.kill(int(half.stem), signal.SIGINT)
        for half in present:
            with half.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH)
        shutil.rmtree(self._folder)


def is_locked(path: Path) -> bool:
    """Tell whether some process holds a file's lock."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
