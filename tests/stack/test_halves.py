"""The tests' two halves share nothing but the clock, and both tear down however the run ends."""

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

from stack.settings import ROOT
from tests.lab import host

pytestmark = pytest.mark.unit

CONFTEST = """
import pathlib, pytest, time
from tests import halves

HERE = pathlib.Path(__file__).parent

def pytest_configure(config):
    config.addinivalue_line("markers", "alone: measures time")
    halves.divide(config)

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

# Lets the other half begin first.
SECOND = """
import pathlib, time

def test_zero():
    while "began" not in (told.read_text() if told.exists() else ""):
        time.sleep(0.1)

told = pathlib.Path(__file__).parents[1] / "told"
"""
End = Callable[["subprocess.Popen[str]"], None]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a folder for each half, and a test in each."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    add(tmp_path, "one", 2)
    add(tmp_path, "test_9_swarm", 2)
    tear_down_in(tmp_path, 0)
    return tmp_path


def add(project: Path, folder: str, seconds: float, *, mark: str = "", limit: float = 60) -> None:
    """Give a folder one test that lasts so many seconds."""
    path = project / folder / f"test_{folder}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(TESTS.format(mark=mark, seconds=seconds, limit=limit))


def tear_down_in(project: Path, seconds: float) -> None:
    """Have what a half made take so long to go."""
    (project / "seconds").write_text(str(seconds))


@contextmanager
def running(project: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run both halves as a shell would in the foreground; kill what is left of them."""
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--numprocesses=2"],
        cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0)
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def run_to_its_end(project: Path) -> str:
    """Run both halves and return what pytest says."""
    with running(project) as run:
        return run.communicate(timeout=60)[0]


def told(project: Path) -> list[str]:
    path = project / "told"
    return path.read_text().splitlines() if path.exists() else []


def by_half(lines: Sequence[str]) -> list[list[str]]:
    """Return what each half told."""
    return [[line[4:] for line in lines if line.startswith(half)] for half in ("gw0 ", "gw1 ")]


def test_each_half_has_a_process_and_they_run_side_by_side(project: Path) -> None:
    said = run_to_its_end(project)
    assert re.search(r"^=+ 2 passed in [0-9.]+s =+$", said.splitlines()[-1]), said
    assert by_half(told(project)) == [["began", "ended", "tore down"]] * 2
    assert [line[4:] for line in told(project)][:2] == ["began", "began"]


def test_one_that_wants_to_be_alone_is_and_its_time_limit_begins_then(project: Path) -> None:
    add(project, "one", 7)
    add(project, "test_9_swarm", 0.1, mark="@pytest.mark.alone", limit=5)
    (project / "test_9_swarm/test_0.py").write_text(SECOND)
    said = run_to_its_end(project)
    assert " 3 passed in " in said, said
    assert [line[4:] for line in told(project) if "tore" not in line] == ["began", "ended"] * 2


def all_at_once(number: signal.Signals) -> End:
    """What a terminal does with Ctrl-C."""
    return lambda run: os.killpg(run.pid, number)


def twice(run: "subprocess.Popen[str]") -> None:
    """What somebody does who thinks that nothing happens."""
    os.killpg(run.pid, signal.SIGINT)
    time.sleep(1)
    os.killpg(run.pid, signal.SIGINT)


@pytest.mark.parametrize(("end", "seconds"), [
    (all_at_once(signal.SIGINT), 2),
    (all_at_once(signal.SIGTERM), 2),
    (twice, 3),
    (lambda run: os.kill(run.pid, signal.SIGINT), 2),
    # xdist would kill a half after ten.
    (lambda run: os.kill(run.pid, signal.SIGTERM), 11)])
def test_whoever_ends_the_run_waits_until_both_have_torn_down(
        project: Path, end: End, seconds: float) -> None:
    for folder in ("one", "test_9_swarm"):
        add(project, folder, 60, limit=120)
    tear_down_in(project, seconds)
    with running(project) as run:
        host.wait_until(lambda: len(told(project)) == 2, 60, "both tests")
        began = time.monotonic()
        end(run)
        said = run.communicate(timeout=60)[0]
    assert time.monotonic() - began > seconds
    assert run.returncode == 2, said
    assert by_half(told(project)) == [["began", "tore down"]] * 2
