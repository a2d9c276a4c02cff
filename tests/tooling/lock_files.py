"""Renew the lock files from the .in files, with uv."""

import sys
from pathlib import Path

from invoke.exceptions import Exit

from stack import progress
from stack.inventory.settings import ROOT
from stack.machines.local import LocalMachine

# Files that constrain others come first.
NAMES = ("requirements.fab", "requirements", "requirements.server", "requirements.test",
         "bench/requirements", "stack/images/traefik/requirements")
# One file for every platform and each supported Python, without the package index's address.
OPTIONS = ("--quiet", "--universal", "--python-version=3.11", "--generate-hashes",
           "--no-annotate", "--no-header", "--no-emit-index-url")


def command(name: str, upgrade: bool) -> list[str]:
    """Return the command that renews a lock file; `upgrade` takes the newest versions."""
    uv = str(Path(sys.executable).with_name("uv"))
    return [uv, "pip", "compile", *OPTIONS, *(["--upgrade"] if upgrade else []),
            f"--output-file={name}.txt", f"{name}.in"]


def renew(upgrade: bool) -> None:
    """Renew every lock file and say which changed; raises Exit at the first failure."""
    machine = LocalMachine()
    for name in NAMES:
        lock = ROOT / f"{name}.txt"
        before = lock.read_text()
        with progress.step(name) as current:
            done = machine.run(command(name, upgrade), cwd=ROOT)
            if not done.ok:
                progress.quote(done.stderr.splitlines()[-10:])
                raise Exit(f"{name}.txt could not be renewed, see above", 1)
            if lock.read_text() != before:
                current.changed("changed")
