"""An operator's laptop: its own home, a fresh clone, Python and git, but no Docker."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.lab import Result

# All that a laptop needs: no Docker.
PROGRAMS = ("git", "sh", "ssh")
# Variables that would point ./fab or its connections at this host's configuration.
HIDDEN = ("INVENTORY", "SSH_AUTH_SOCK", "DOCKER_HOST", "DOCKER_CONFIG", "VIRTUAL_ENV")
NodeEntry = dict[str, Any]


@dataclass(frozen=True)
class Laptop:
    """A home directory with an SSH key and a clone of the project."""

    home: Path

    @property
    def folder(self) -> Path:
        return self.home / "tally"

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory.yml"

    @property
    def known_hosts(self) -> Path:
        """The host keys that ./fab has been told to trust."""
        return self.folder / "known_hosts"

    def choose(self, nodes: Sequence[NodeEntry], **keys: Any) -> None:
        """Write the inventory, with any further keys."""
        self.inventory.write_text(yaml.safe_dump({"name": "test", "nodes": list(nodes), **keys}))

    def shell(self, line: str, timeout: float) -> Result:
        """Run a shell line in the home directory, whatever its exit code."""
        done = subprocess.run(["/bin/sh", "-c", line], cwd=self.home, env=self._environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout)
        return Result(done.stdout, done.stderr, done.returncode)

    def fab(self, arguments: str, *, timeout: float = 900) -> Result:
        """Run ./fab in the clone, whatever its exit code."""
        return self.shell(f"cd tally && ./fab {arguments}", timeout)

    @contextmanager
    def watching(self, *arguments: str) -> Iterator["Run"]:
        """Run ./fab while a test reads its output; kill it at the end of the block."""
        process = subprocess.Popen(
            ["./fab", *arguments], cwd=self.folder, env=self._environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)
        run = Run(process)
        try:
            yield run
        finally:
            run.kill()

    @property
    def _environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        return {**kept, "HOME": str(self.home), "PATH": str(self.home / "bin"),
                # What a killed ./fab leaves behind is removed with the laptop. A socket's path has
                # at most 107 bytes, so the home's path must be short.
                "TMPDIR": str(self.home / "tmp")}


class Run:
    """A running command and its output."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.printed: list[str] = []

    def lines(self) -> Iterator[str]:
        """Yield each line as it is printed."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.printed.append(line.rstrip("\n"))
            yield self.printed[-1]

    def read_until(self, wanted: Callable[[str], bool]) -> bool:
        """Read until a line is wanted; return whether there was one."""
        return any(wanted(line) for line in self.lines())

    def end(self, timeout: float) -> int:
        """Read the rest of the output and return the exit code."""
        for _ in self.lines():
            pass
        return self._process.wait(timeout)

    def kill(self) -> None:
        """Kill it and all of its children, without a chance to clean up."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def new_laptop(home: Path, repository: Path, key: Path) -> Laptop:
    """Make a laptop whose operator has just cloned the project."""
    for folder in (home / "bin", home / ".ssh", home / "tmp"):
        folder.mkdir(parents=True, mode=0o700)
    (home / "bin/python3").symlink_to(os.path.realpath(sys.executable))
    for program in PROGRAMS:
        found = shutil.which(program)
        assert found, f"this host has no {program}"
        (home / "bin" / program).symlink_to(found)
    shutil.copy(key, home / ".ssh/id_ed25519")
    laptop = Laptop(home)
    cloned = laptop.shell(f"git clone --quiet {repository} tally", 60)
    assert cloned.code == 0, cloned.stderr
    return laptop


# Seconds that `./fab --list`, which only starts Python, takes on two quiet cores.
LISTED = 0.8


def takes_less_than(seconds: float, laptop: Laptop, work: Callable[[], object]) -> bool:
    """Return whether work takes less than this on a quiet host, in one of five tries.

    This host may be busy: `./fab --list`, just before, shows how much longer all takes then.
    """
    for _ in range(5):
        slowdown = max(1.0, quickest(1, lambda: laptop.fab("--list")) / LISTED)
        if quickest(1, work) < seconds * slowdown:
            return True
    return False


def quickest(tries: int, work: Callable[[], object]) -> float:
    """Return the shortest of several times, in seconds: the one with the least other load."""
    taken = []
    for _ in range(tries):
        began = time.monotonic()
        work()
        taken.append(time.monotonic() - began)
    return min(taken)
