"""Groups of tests run independently, and each tears down however the run ends."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stack.inventory.settings import ROOT
from tests.lab import host

# These tests wait for real processes to end.
pytestmark = pytest.mark.service

CONFTEST = """
import pathlib, pytest, time
from tests.tooling import groups

HERE = pathlib.Path(__file__).parent

def pytest_configure(config):
    config.addinivalue_line("markers", "alone: measures time")
    groups.divide(config)

def tell(*words):
    with (HERE / "told").open("a") as told:
        print(*words, file=told)

@pytest.fixture(scope="session")
def machine(worker_id, seconds_to_tear_down=float((HERE / "seconds").read_text())):
    yield
    time.sleep(seconds_to_tear_down)
    tell(worker_id, "tore down")

@pytest.fixture
def lasting(worker_id):
    return lambda seconds: (tell(worker_id, "began"), time.sleep(seconds),
                            tell(worker_id, "ended"))
"""
TESTS = """
import pytest

{mark}
@pytest.mark.timeout({limit})
def test_one(machine, lasting):
    lasting({seconds})
"""

# Lets the other group start first.
SECOND = """
import pathlib, time

def test_zero():
    while "began" not in (told.read_text() if told.exists() else ""):
        time.sleep(0.1)

told = pathlib.Path(__file__).parents[3] / "told"
"""
# The folder of one group's tests; all others are the other's.
SWARM = "tests/e2e/swarm"
End = Callable[["subprocess.Popen[str]"], None]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two groups of one test each."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    add(tmp_path, "one", 2)
    add(tmp_path, SWARM, 2)
    tear_down_in(tmp_path, 0)
    return tmp_path


def add(project: Path, folder: str, seconds: float, *, mark: str = "", limit: float = 60) -> None:
    """Add one test to a folder that lasts this many seconds."""
    path = project / folder / f"test_{Path(folder).name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TESTS.format(mark=mark, seconds=seconds, limit=limit))


def tear_down_in(project: Path, seconds: float) -> None:
    """Make each group's teardown take this long."""
    (project / "seconds").write_text(str(seconds))


@contextmanager
def running(project: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run both groups like a shell's foreground job; kill what is left at the end."""
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--numprocesses=2",
         "--dist=loadscope"],
        cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0)
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def run_to_its_end(project: Path) -> str:
    """Run both groups and return pytest's output."""
    with running(project) as run:
        return run.communicate(timeout=60)[0]


def told(project: Path) -> list[str]:
    path = project / "told"
    return path.read_text().splitlines() if path.exists() else []


def by_group(lines: Sequence[str]) -> list[list[str]]:
    """Return each group's lines."""
    return [[line[4:] for line in lines if line.startswith(group)] for group in ("gw0 ", "gw1 ")]


def test_each_group_has_a_process_and_they_run_side_by_side(project: Path) -> None:
    said = run_to_its_end(project)
    assert re.search(r"^=+ 2 passed in [0-9.]+s =+$", said.splitlines()[-1]), said
    assert by_group(told(project)) == [["began", "ended", "tore down"]] * 2
    assert [line[4:] for line in told(project)][:2] == ["began", "began"]


def test_a_test_that_must_be_alone_waits_and_its_time_limit_starts_then(project: Path) -> None:
    add(project, "one", 7)
    add(project, SWARM, 0.1, mark="@pytest.mark.alone", limit=5)
    (project / SWARM / "test_0.py").write_text(SECOND)
    said = run_to_its_end(project)
    assert " 3 passed in " in said, said
    assert [line[4:] for line in told(project) if "tore" not in line] == ["began", "ended"] * 2


def all_at_once(number: signal.Signals) -> End:
    """Signal the whole process group, as a terminal does with Ctrl-C."""
    return lambda run: os.killpg(run.pid, number)


def twice(run: "subprocess.Popen[str]") -> None:
    """Press Ctrl-C twice, like somebody who thinks that nothing happens."""
    os.killpg(run.pid, signal.SIGINT)
    time.sleep(1)
    os.killpg(run.pid, signal.SIGINT)


@pytest.mark.parametrize(("end", "seconds"), [
    (all_at_once(signal.SIGINT), 2),
    (all_at_once(signal.SIGTERM), 2),
    (twice, 3),
    (lambda run: os.kill(run.pid, signal.SIGINT), 2),
    # xdist would kill a group after ten seconds.
    (lambda run: os.kill(run.pid, signal.SIGTERM), 11)])
def test_however_the_run_ends_both_groups_are_torn_down(
        project: Path, end: End, seconds: float) -> None:
    for folder in ("one", SWARM):
        add(project, folder, 60, limit=120)
    tear_down_in(project, seconds)
    with running(project) as run:
        host.wait_until(lambda: len(told(project)) == 2, 60, "both tests")
        began = time.monotonic()
        end(run)
        said = run.communicate(timeout=60)[0]
    assert time.monotonic() - began > seconds
    assert run.returncode == 2, said
    assert by_group(told(project)) == [["began", "tore down"]] * 2
