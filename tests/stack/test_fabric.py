"""Fabric prints an error as one line and ends with its exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stack.errors import OperatorError
from stack.inventory.settings import ROOT
from tests.stack.test_errors import CODES

# It starts Fabric.
pytestmark = pytest.mark.service

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
def test_fabric_prints_one_line_and_ends_with_the_code(
        tmp_path: Path, kind: type[OperatorError], code: int) -> None:
    done = fabric(tmp_path, "fail", kind.__name__)
    assert (done.stdout, done.stderr) == ("", "the disk is full: make room\n")
    assert done.returncode == code


def test_fabric_prints_several_errors_a_line_each(tmp_path: Path) -> None:
    done = fabric(tmp_path, "fail-twice")
    assert (done.stdout, done.stderr, done.returncode) \
        == ("", "a has no room\nb is locked\n", 7)
