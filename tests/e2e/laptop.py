"""An operator's laptop: a fresh clone, a home of its own, Python and git, and no Docker."""

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

# All that a laptop needs; Docker isn't among it.
PROGRAMS = ("git", "sh", "ssh")
# What would lead ./fab or its connections to this host's own things.
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
        """Write the inventory, with further keys if they are given."""
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
        """Run ./fab while a test reads along; what still runs at the end is killed."""
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
                # What a killed ./fab leaves goes when the laptop goes. A socket's path in there
                # has 107 bytes at most: keep the home's short.
                "TMPDIR": str(self.home / "tmp")}


class Run:
    """A command that runs, and what it has printed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.printed: list[str] = []

    def lines(self) -> Iterator[str]:
        """Give each line as it is printed."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.printed.append(line.rstrip("\n"))
            yield self.printed[-1]

    def read_until(self, wanted: Callable[[str], bool]) -> bool:
        """Read on until such a line; tell whether there was one."""
        return any(wanted(line) for line in self.lines())

    def end(self, timeout: float) -> int:
        """Read to the end and return the exit code."""
        for _ in self.lines():
            pass
        return self._process.wait(timeout)

    def kill(self) -> None:
        """Kill it and all that it started, with no time to tidy up."""
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


def quickest(tries: int, work: Callable[[], object]) -> float:
    """Return the seconds that work takes when nothing else on this host is in its way."""
    taken = []
    for _ in range(tries):
        began = time.monotonic()
        work()
        taken.append(time.monotonic() - began)
    return min(taken)
