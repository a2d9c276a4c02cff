"""A ring runs pytest on its folders, and ends with pytest's exit code."""

from pathlib import Path

import pytest
from invoke.exceptions import Exit

from stack.inventory import settings
from stack.machines.local import LocalMachine
from tests.stack.conftest import AddCommand
from tests.tooling import rings
from tests.tooling.rings import Ring

# It starts programs.
pytestmark = pytest.mark.service

# Records that it ran, and fails if there is a file named broken.
TESTS = """
import pathlib, pytest

@pytest.mark.{marker}
def test_one():
    with open("ran", "a") as ran:
        ran.write("{folder} {marker}\\n")
    assert not pathlib.Path("broken").exists()
"""
QUICK, SLOW = Ring("quick", ("one", "both")), Ring("slow", ("both", "two"))


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate project, in which each folder has a test for each ring."""
    monkeypatch.setattr(rings, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-qq")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "setup.cfg").write_text("[tool:pytest]\nmarkers =\n    quick\n    slow\n")
    for folder in ("one", "both", "two"):
        for marker in ("quick", "slow"):
            path = tmp_path / folder / f"test_{folder}_{marker}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(TESTS.format(folder=folder, marker=marker))
    return tmp_path


def test_a_ring_runs_its_own_tests_in_its_own_folders(project: Path) -> None:
    rings.run(QUICK)
    assert (project / "ran").read_text().splitlines() == ["one quick", "both quick"]


def test_rings_run_together_and_a_shared_folder_once(project: Path) -> None:
    rings.run(QUICK, SLOW)
    assert (project / "ran").read_text().splitlines() == [
        "one quick", "one slow", "both quick", "both slow", "two quick", "two slow"]


def test_a_failed_ring_ends_the_command_with_pytests_code(project: Path) -> None:
    (project / "broken").touch()
    with pytest.raises(Exit) as raised:
        rings.run(QUICK)
    assert raised.value.code == 1


def test_a_ring_without_a_test_fails_too() -> None:
    with pytest.raises(Exit) as raised:
        rings.run(Ring("quick", ("two/test_two_slow.py",)))
    assert raised.value.code == 5


def test_a_ring_passes_its_options_to_pytest(project: Path) -> None:
    without = "--deselect=one/test_one_quick.py::test_one"
    rings.run(Ring("quick", ("one", "two"), options=(without,)))
    assert (project / "ran").read_text().splitlines() == ["two quick"]


def test_the_slow_ring_runs_only_when_it_is_asked_for() -> None:
    assert rings.VM not in rings.EVERY


def test_the_lab_runs_every_folder_of_end_to_end_tests() -> None:
    folders = {str(path.parent.relative_to(settings.ROOT))
               for path in (settings.ROOT / "tests/e2e").rglob("test_*.py")}
    assert folders | {"tests/lab"} == set(rings.LAB.folders)


def test_no_caches_are_left_in_the_checkout(project: Path) -> None:
    rings.run(QUICK)
    assert [path.name for path in project.rglob("*cache*")] == []


@pytest.mark.parametrize(("said", "installed"), [
    ("installed", True), ("config-files", False), ("", False)])
def test_a_package_counts_as_installed_once_it_is_configured(
        machine: LocalMachine, add_command: AddCommand, said: str, installed: bool) -> None:
    add_command("dpkg-query", f"printf '%s' '{said}'")
    assert rings.is_installed(machine, "postgresql") is installed
