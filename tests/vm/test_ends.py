"""However the tests end, nothing of the virtual machine is left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stack.inventory.settings import ROOT
from tests.lab import host
from tests.lab.test_lab import leftovers
from tests.vm.lab import VirtualLab

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

# Holds a lab, prints its directory, and boots a machine.
CHILD = """
from tests.lab.seed import default_user_data
from tests.vm.lab import VirtualLab
with VirtualLab() as lab:
    print(lab.private_key.parent, flush=True)
    with lab.virtual_machine("vm1", default_user_data(lab.public_key)):
        raise RuntimeError("it should have been ended while it booted")
"""


def start_child() -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a lab; return when its machine boots."""
    child = subprocess.Popen([sys.executable, "-c", CHILD], cwd=ROOT, text=True,
                             stdout=subprocess.PIPE)
    assert child.stdout is not None
    directory = Path(child.stdout.readline().strip())
    host.wait_until(lambda: said(directory) > 0, 240, "start of the machine")
    return child, directory


def said(directory: Path) -> int:
    """Return how many bytes the machine has written to its console."""
    console = directory / "vm1" / "console"
    return console.stat().st_size if console.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(lab: VirtualLab, number: signal.Signals) -> None:
    child, directory = start_child()
    before = leftovers(directory)

    child.send_signal(number)
    child.wait(timeout=60)

    assert before == {"processes", "links", "rules", "files"}
    assert leftovers(directory) == set()


def test_a_killed_runs_machine_ends_and_the_next_run_removes_the_rest(
        lab: VirtualLab) -> None:
    child, directory = start_child()

    child.kill()
    child.wait(timeout=60)

    host.wait_until(lambda: "processes" not in leftovers(directory), 10, "its end")
    with VirtualLab():
        # Another lab may already use its number, but its machine is gone.
        assert not (directory / "vm1").exists()
    assert leftovers(directory) == set()
