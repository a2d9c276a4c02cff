"""Each way to fail has its exit code, and Fabric prints it as one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stack.errors import (
    Locked, MigrationFailed, OperatorError, Refused, RestoreFailed, Several, UpdateFailed,
    raise_all)
from stack.rollout import NotArrived
from stack.settings import ROOT

pytestmark = pytest.mark.unit

CODES = [(OperatorError, 1), (Refused, 1), (MigrationFailed, 3), (UpdateFailed, 4),
         (RestoreFailed, 5), (Locked, 7)]

FABFILE = """
from fabric import task
from stack import errors

@task
def fail_twice(context):
    errors.raise_all([errors.Refused("a has no room"), errors.Locked("b is locked")])

@task
def fail(context, name):
    raise getattr(errors, name)("the disk is full", "make room")
"""


def fabric(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "fabfile.py").write_text(FABFILE)
    return subprocess.run(
        [sys.executable, "-m", "fabric", f"--search-root={folder}", *arguments],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize(("kind", "code"), CODES)
def test_an_errors_code_is_its_kinds(kind: type[OperatorError], code: int) -> None:
    assert kind("the disk is full").code == code


def test_an_error_names_its_cause_and_what_to_do() -> None:
    error = OperatorError("the disk is full", "make room")
    assert (error.message, error.cause) == ("the disk is full: make room", "the disk is full")


def test_a_cause_of_many_lines_becomes_one() -> None:
    error = OperatorError("  the disk\n\tis   full\n", "make room")
    assert (error.message, error.cause) == ("the disk is full: make room", "the disk is full")


def test_an_error_reads_as_its_line() -> None:
    assert str(UpdateFailed("the disk is full", "make room")) == "the disk is full: make room"


def test_an_error_may_have_no_remedy() -> None:
    assert OperatorError("the disk is full").message == "the disk is full"


def test_a_stack_that_did_not_arrive_carries_what_docker_said_or_the_task_to_blame() -> None:
    refused = NotArrived("app: refused", said=["first line", "last line"])
    assert (refused.message, refused.said, refused.task) \
        == ("app: refused", ["first line", "last line"], "")
    assert NotArrived("app: exited", task="t").task == "t"


def test_several_errors_are_a_line_each_and_end_with_the_gravest_ones_code() -> None:
    errors = [Refused("a has no room", "make some"), Locked("b is locked"), Refused("c is gone")]
    with pytest.raises(Several) as raised:
        raise_all(errors)
    assert str(raised.value) == "a has no room: make some\nb is locked\nc is gone"
    assert (raised.value.code, raised.value.cause) == (7, "b is locked")


def test_one_error_alone_stays_what_it_is() -> None:
    error = Locked("b is locked")
    with pytest.raises(Locked) as raised:
        raise_all([error])
    assert raised.value is error


def test_where_there_is_no_error_work_goes_on() -> None:
    raise_all([])


@pytest.mark.parametrize(("kind", "code"), CODES)
def test_fabric_prints_one_line_and_ends_with_the_code(
        tmp_path: Path, kind: type[OperatorError], code: int) -> None:
    done = fabric(tmp_path, "fail", kind.__name__)
    assert (done.stdout, done.stderr) == ("", "the disk is full: make room\n")
    assert done.returncode == code


def test_fabric_prints_several_errors_a_line_each(tmp_path: Path) -> None:
    done = fabric(tmp_path, "fail-twice")
    assert (done.stdout, done.stderr, done.returncode) \
        == ("", "a has no room\nb is locked\n", 7)
