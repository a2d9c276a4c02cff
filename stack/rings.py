"""Run the tests, ring by ring: style, unit, service, lab; and vm, which takes long."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

from invoke.exceptions import Exit

from stack import console, install
from stack.machine import LocalMachine
from stack.privilege import require_root
from stack.settings import ROOT


@dataclass(frozen=True)
class Ring:
    """A ring's folders, in the order they run, and the Debian packages that it needs.

    `options` are pytest's own.
    """

    marker: str
    folders: tuple[str, ...]
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


STYLE = Ring("style", ("tests/files",))
UNIT = Ring("unit", ("tests/app", "tests/stack"))
SERVICE = Ring("service", ("tests/app", "tests/stack"), (
    "postgresql", "mariadb-server", "openssh-server", "openssh-client", "sudo", "git"))
LAB = Ring("lab", ("tests/lab", "tests/e2e"), (
    "systemd-container", "mmdebstrap", "debian-archive-keyring", "iproute2", "iptables",
    "openssh-client", "git"),
    # Machines are waited for most of the time: tests/halves.py divides the work.
    ("--numprocesses=2",))
EVERY = (STYLE, UNIT, SERVICE, LAB)
# Not one of them: it emulates a CPU, and that takes long. So it says what it is doing meanwhile.
VM = Ring("vm", ("tests/vm",), (*LAB.packages, "qemu-system-x86"), (
    "--log-cli-level=INFO", "--log-cli-format=%(asctime)s  %(message)s",
    "--log-cli-date-format=%H:%M:%S"))


def run(*rings: Ring) -> None:
    """Install what the rings need, run pytest on them, and end as it ends if it fails."""
    if any(ring.packages for ring in rings):
        require_root("testing with real services and machines")
    install_packages(*rings)
    markers = " or ".join(ring.marker for ring in rings)
    folders = list(dict.fromkeys(folder for ring in rings for folder in ring.folders))
    options = [option for ring in rings for option in ring.options]
    sys.stdout.flush()
    # A runner that isn't root has to be able to clean its checkout.
    clean = {"PYTHONDONTWRITEBYTECODE": "1", "MYPY_CACHE_DIR": os.devnull}
    code = run_to_its_end(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", markers, *options,
         *folders],
        {**os.environ, **(clean if os.geteuid() == 0 else {})})
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
    """Install the Debian packages of some rings that aren't there yet."""
    machine = LocalMachine()
    missing = [package for ring in rings for package in ring.packages
               if not is_installed(machine, package)]
    if missing:
        with console.step("packages") as current:
            current.doing(f"installing {', '.join(missing)}")
            install.packages(machine, *missing)
            current.changed("installed")


def is_installed(machine: LocalMachine, package: str) -> bool:
    """Tell whether a Debian package is installed and configured."""
    done = machine.run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", package])
    return done.stdout == "installed"
