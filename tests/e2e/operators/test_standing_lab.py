"""Machines for manual use boot, accept a login, and leave nothing behind."""

import re
import subprocess
from pathlib import Path

import pytest

from stack.inventory.settings import ROOT
from tests.lab import Result
from tests.lab.test_lab import leftovers

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


def fab(*arguments: str, typed: str = "") -> Result:
    """Run ./fab in this checkout, with input as if typed."""
    done = subprocess.run([ROOT / "fab", *arguments], input=typed, capture_output=True, text=True,
                          timeout=600)
    return Result(done.stdout, done.stderr, done.returncode)


def test_two_machines_run_until_they_are_taken_down() -> None:
    up = fab("lab.up", "--machines", "2")
    # Running machines belong to somebody, and stay.
    assert up.code == 0, up.stdout + up.stderr
    try:
        directory = lab_directory(up)
        there = leftovers(directory)
        inside = fab("lab.ssh", "--name", "machine2", typed="hostname; id --user --name\n")
        named = fab("lab.ssh", "--name", "machine2", "--user", "root", "--", "id", "--user")
    finally:
        down = fab("lab.down")

    assert up.stdout.startswith("2 machines up in ")
    assert there == {
        "processes", "namespaces", "links", "rules", "disks", "cgroups", "files"}
    assert inside.code == 0, inside.stderr
    # The machine may print a greeting first.
    assert inside.stdout.splitlines()[-2:] == ["machine2", "deploy"]
    assert (named.code, named.stdout) == (0, "0\n"), named.stderr
    assert (down.code, down.stdout) == (0, "The lab is down.\n"), down.stderr
    assert leftovers(directory) == set()


def lab_directory(up: Result) -> Path:
    """Return the directory of the machines' files, where the key is."""
    found = re.search("^SSH key: (.*), user deploy$", up.stdout, re.MULTILINE)
    assert found, up.stdout
    return Path(found[1]).parent
