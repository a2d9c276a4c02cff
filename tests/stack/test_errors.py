"""Each way to fail has its exit code, and Fabric prints it as one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stack.errors import (
    Locked, MigrationFailed, OperatorError, Refused, RestoreFailed, UpdateFailed)
from stack.rollout import NotArrived
from stack.settings import ROOT

pytestmark = pytest.mark.unit

CODES = [(OperatorError, 1), (Refused, 1), (MigrationFailed, 3), (UpdateFailed, 4),
         (RestoreFailed, 5), (Locked, 7)]

FABFILE = """
from fabric import task
from stack import errors

@task
def fail(context, name):
    raise getattr(errors, name)("the disk is full", "make room")
"""


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


def test_a_stack_that_did_not_arrive_carries_a_log() -> None:
    error = NotArrived("app: exited", ["first line", "last line"])
    assert (error.message, error.log) == ("app: exited", ["first line", "last line"])


@pytest.mark.parametrize(("kind", "code"), CODES)
def test_fabric_prints_one_line_and_ends_with_the_code(
        tmp_path: Path, kind: type[OperatorError], code: int) -> None:
    (tmp_path / "fabfile.py").write_text(FABFILE)
    done = subprocess.run(
        [sys.executable, "-m", "fabric", f"--search-root={tmp_path}", "fail", kind.__name__],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.stdout, done.stderr) == ("", "the disk is full: make room\n")
    assert done.returncode == code
