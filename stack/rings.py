"""Run the tests, ring by ring: style, unit, service, lab."""

import os
import sys
from dataclasses import dataclass

from stack import console, install
from stack.machine import LocalMachine
from stack.privilege import require_root
from stack.settings import ROOT


@dataclass(frozen=True)
class Ring:
    """A ring's folders, in the order they run, and the Debian packages that it needs."""

    marker: str
    folders: tuple[str, ...]
    packages: tuple[str, ...] = ()


STYLE = Ring("style", ("tests/files",))
UNIT = Ring("unit", ("tests/app", "tests/stack"))
SERVICE = Ring("service", ("tests/app",), ("postgresql", "mariadb-server"))
LAB = Ring("lab", ("tests/lab", "tests/e2e"), (
    "systemd-container", "mmdebstrap", "debian-archive-keyring", "iproute2", "iptables",
    "openssh-client", "git", "docker.io"))
EVERY = (STYLE, UNIT, SERVICE, LAB)


def run(*rings: Ring) -> None:
    """Install what the rings need, then become pytest, so that its exit code is ours."""
    machine = LocalMachine()
    missing = [package for ring in rings for package in ring.packages
               if not is_installed(machine, package)]
    if any(ring.packages for ring in rings):
        require_root("testing with real services and machines")
    if missing:
        with console.step("packages") as current:
            current.doing(f"installing {', '.join(missing)}")
            install.packages(machine, *missing)
            current.changed("installed")
    markers = " or ".join(ring.marker for ring in rings)
    folders = list(dict.fromkeys(folder for ring in rings for folder in ring.folders))
    sys.stdout.flush()
    os.chdir(ROOT)
    if os.geteuid() == 0:
        # A runner that isn't root has to be able to clean its checkout.
        os.environ.update(PYTHONDONTWRITEBYTECODE="1", MYPY_CACHE_DIR=os.devnull)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", "-p", "no:cacheprovider",
                              "-m", markers, *folders])


def is_installed(machine: LocalMachine, package: str) -> bool:
    """Tell whether a Debian package is installed and configured."""
    done = machine.run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", package])
    return done.stdout == "installed"
