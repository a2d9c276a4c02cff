"""Run groups of tests in parallel, each in its own process.

With --dist=loadscope, the tests that share a Swarm of several machines are one group, and all
others are the second. Each process shares the machines that it boots, and tears down what it has
made, however the run ends.
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

from tests.tooling.turns import turn

FOLDER = "groups"
# How the folders of tests begin that share a Swarm of several machines.
SEVERAL = "tests/e2e/swarm"
# The suffix of a file that each group's process keeps locked, named by its PID.
PRESENCE = ".pid"
ENDING = (signal.SIGINT, signal.SIGTERM)


def divide(config: pytest.Config) -> None:
    """Register this process's plugin, if it runs groups or controls processes that do."""
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Worker(Path(config.workerinput[FOLDER])))
    elif config.getoption("numprocesses", None):
        config.pluginmanager.register(Controller())


def end_once() -> None:
    """Start the teardown at the first Ctrl-C or SIGTERM, and ignore any further one."""
    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt
    for each in ENDING:
        signal.signal(each, interrupt)


class Groups(LoadScopeScheduling):
    """A scheduler that gives each group to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return "several" if nodeid.startswith(SEVERAL) else "others"


class Worker:
    """Runs groups: waits for tests that run alone, and shows that this process still exists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The kernel releases the lock when the process ends, in whatever way.
        self._presence = (folder / f"{os.getpid()}{PRESENCE}").open("w")
        fcntl.flock(self._presence, fcntl.LOCK_EX)
        end_once()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Wait for the test's turn before its time limit starts."""
        with turn(self._folder, item.get_closest_marker("alone") is not None):
            return (yield)

    def pytest_unconfigure(self) -> None:
        self._presence.close()


class Controller:
    """Starts the groups' processes, ends them cleanly, and waits until they have ended.

    xdist would wait only ten seconds, but a group may have to take down a Swarm.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tally-tests-"))
        end_once()

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Producer) -> Groups | None:
        """Group the tests by folder if they are divided by scope, as those on machines are."""
        return Groups(config, log) if config.getoption("dist") == "loadscope" else None

    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput[FOLDER] = str(self._folder)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        early = exitstatus in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR}
        present = [file for file in self._folder.glob(f"*{PRESENCE}") if is_locked(file)]
        for worker in present if early else []:
            # A process that a terminal's Ctrl-C has already interrupted ignores it.
            os.kill(int(worker.stem), signal.SIGINT)
        for worker in present:
            with worker.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH)
        shutil.rmtree(self._folder)


def is_locked(path: Path) -> bool:
    """Return whether a process holds a file's lock."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
