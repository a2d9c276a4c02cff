"""Packages come from the distribution, once another apt has let go of its lists."""

import time
from pathlib import Path

import pytest

from stack import install
from stack.machine import LocalMachine
from tests.stack.conftest import AddCommand
from tests.stack.executables import executable
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit

# What another apt that is at work makes this one say.
BUSY = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let no time pass while something waits; return how long it would have."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_an_engine_with_its_client_is_installed(no_commands: Path) -> None:
    executable(no_commands / "dockerd")
    executable(no_commands / "docker")
    assert install.docker_is_installed()


def test_an_engine_without_a_client_is_not_enough(no_commands: Path) -> None:
    executable(no_commands / "dockerd")
    assert not install.docker_is_installed()


def test_another_apt_is_waited_for(machine: LocalMachine, add_command: AddCommand,
                                   waits: list[float], tmp_path: Path) -> None:
    add_command("apt-get", f"echo \"$*\" >> {tmp_path}/said",
                f"[ $(wc -l < {tmp_path}/said) -gt 2 ] || {{ echo '{BUSY}' >&2; exit 100; }}")
    add_command("apt-cache", "echo known")
    install.packages(machine, "git")
    update = " ".join(install.APT[1:]) + " update --error-on=any"
    said = (tmp_path / "said").read_text().splitlines()
    assert (said[:-1], len(waits)) == ([update] * 3, 2)
    assert said[-1].startswith(" ".join(install.APT[1:]) + " install ")


def test_package_sources_that_dont_answer_are_not_waited_for(
        machine: LocalMachine, add_command: AddCommand, waits: list[float]) -> None:
    add_command("apt-get", "echo 'E: Failed to fetch the index' >&2; exit 100")
    assert error_of(lambda: install.packages(machine, "git")) == (
        "no package source answers (E: Failed to fetch the index): "
        "check the network and the sources with: apt-get update")
    assert waits == []
