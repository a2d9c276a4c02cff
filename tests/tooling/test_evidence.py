"""Machines' answers about a failed test are kept, within limits, and disturb nothing else."""

import subprocess
from pathlib import Path
from typing import cast

import pytest

from tests.lab.errors import LabError
from tests.lab.machine import Machine
from tests.lab.ssh import Result
from tests.tooling import evidence

pytestmark = pytest.mark.unit


class Speaking:
    """A machine that answers each command, unless it is off or hangs."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name, self._error = name, error

    def console(self, command: str, *, check: bool, timeout: float) -> Result:
        if self._error:
            raise self._error
        return Result("said\n", "warned\n", 1)


def machines(*speaking: Speaking) -> list[Machine]:
    return [cast(Machine, each) for each in speaking]


def test_each_answer_of_each_machine_has_a_file(tmp_path: Path) -> None:
    folder = evidence.keep("test_a.py::test_b", machines(Speaking("anna")), tmp_path)

    assert folder is not None
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        f"anna.{name}": "said\nwarned\n" for name in ("journal", "docker", "system")}


@pytest.mark.parametrize("error", [LabError("berta is off"),
                                   subprocess.TimeoutExpired("journalctl", 30)])
def test_a_machine_that_cant_answer_is_left_out(tmp_path: Path, error: Exception) -> None:
    folder = evidence.keep("test_b", machines(Speaking("berta", error), Speaking("anna")), tmp_path)

    assert folder is not None
    assert {path.name.partition(".")[0] for path in folder.iterdir()} == {"anna"}


def test_only_the_first_failures_are_kept(tmp_path: Path) -> None:
    kept = [evidence.keep(f"test_{number}", machines(), tmp_path) for number in range(12)]

    assert [folder is None for folder in kept] == [False] * 10 + [True] * 2
