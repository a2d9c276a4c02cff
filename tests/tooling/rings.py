"""Run the tests, ring by ring: style, unit, service, lab; and vm, which takes long."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from invoke.exceptions import Exit

from stack import progress
from stack.inventory.settings import ROOT
from stack.machines import packages
from stack.machines.local import LocalMachine
from stack.machines.sudo import require_root


@dataclass(frozen=True)
class Ring:
    """A ring's folders, in the order in which they run, and the Debian packages that it needs.

    `options` are pytest's own.
    """

    marker: str
    folders: tuple[str, ...]
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


# The next free process takes the next test.
SPREAD = ("--numprocesses=2", "--dist=worksteal")
# These tests wait half of their time, so two processes would leave the processors idle.
DENSE = ("--numprocesses=4", "--dist=worksteal")
STYLE = Ring("style", ("tests/files",), options=DENSE)
UNIT = Ring("unit", ("tests/app", "tests/stack", "tests/tooling"), options=DENSE)
SERVICE = Ring("service", ("tests/app", "tests/stack", "tests/tooling"), (
    "postgresql", "pgbouncer", "mariadb-server", "openssh-server", "openssh-client", "sudo",
    "git", "haproxy",
    # Login shells that people have.
    "zsh", "fish", "tcsh", "csh"), SPREAD)
LAB = Ring("lab", ("tests/lab", "tests/e2e/one_machine", "tests/e2e/operators",
                   "tests/e2e/new_machines", "tests/e2e/swarm", "tests/e2e/swarm_faults",
                   "tests/e2e/swarm_membership"), (
    "systemd-container", "mmdebstrap", "debian-archive-keyring", "iproute2", "iptables",
    "openssh-client", "git"),
    # Two groups (tests/tooling/groups.py); more would wait for the processors.
    ("--numprocesses=2", "--dist=loadscope", "--durations=20"))
QUICK = (STYLE, UNIT)
EVERY = (*QUICK, SERVICE, LAB)
# Not one of them, since it emulates a CPU, which takes long. So it logs its progress.
VM = Ring("vm", ("tests/vm",), (*LAB.packages, "qemu-system-x86"), (
    "--log-cli-level=INFO", "--log-cli-format=%(asctime)s  %(message)s",
    "--log-cli-date-format=%H:%M:%S"))
# In ./fab's environment, so that nothing is left in the checkout: a runner without root has to be
# able to clean it.
CACHES = {"MYPY_CACHE_DIR": str(ROOT / ".venv/mypy"),
          "PYTHONPYCACHEPREFIX": str(ROOT / ".venv/pycache"),
          "PYTHONDONTWRITEBYTECODE": ""}
# The machines' logs of the tests that failed in the lab's last run.
ARTIFACTS = ROOT / "test-artifacts"


def run(*rings: Ring) -> None:
    """Install the rings' packages, then run pytest on them; exit with its code if it fails.

    Rings with the same options run together. The quick ones come first, so that a mistake shows
    before any machine boots.
    """
    if any(ring.packages for ring in rings):
        require_root("testing with real services and machines")
    install_packages(*rings)
    if LAB in rings:
        shutil.rmtree(ARTIFACTS, ignore_errors=True)
    for _, alike in groupby(rings, key=lambda ring: ring.options):
        run_together(*alike)


def run_together(*rings: Ring) -> None:
    """Run pytest once for rings with the same options; raises Exit if it fails."""
    markers = " or ".join(ring.marker for ring in rings)
    folders = list(dict.fromkeys(folder for ring in rings for folder in ring.folders))
    sys.stdout.flush()
    code = run_to_its_end(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", markers,
         *rings[0].options, *folders],
        {**os.environ, **CACHES})
    if code:
        raise Exit(code=code)


def run_to_its_end(command: list[str], env: dict[str, str]) -> int:
    """Run a command and return its code; pass SIGTERM on, so that the tests can clean up."""
    child = subprocess.Popen(command, cwd=ROOT, env=env)
    before = signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    try:
        while True:
            # The terminal sends Ctrl-C to the child as well, which is cleaning up.
            with suppress(KeyboardInterrupt):
                return child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def install_packages(*rings: Ring) -> None:
    """Install the missing Debian packages of some rings."""
    machine = LocalMachine()
    missing = [package for ring in rings for package in ring.packages
               if not is_installed(machine, package)]
    if missing:
        with progress.step("packages") as current:
            current.doing(f"installing {', '.join(missing)}")
            packages.install(machine, *missing)
            current.changed("installed")


def is_installed(machine: LocalMachine, package: str) -> bool:
    """Return whether a Debian package is installed and configured."""
    done = machine.run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", package])
    return done.stdout == "installed"
