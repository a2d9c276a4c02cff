"""Run commands on a machine, and give it files."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO

from stack.errors import Locked, OperatorError

# What a command gets to read: text, or a file's bytes as they come.
Input = str | IO[bytes] | None
# The docker command's own folder on a machine, so that nobody's ~/.docker has a say:
# docker --config /etc/tally/docker push …
DOCKER_CONFIG = "/etc/tally/docker"
# Written beside and renamed, so that nobody ever reads half of it.
WRITE = """
set -eu
umask 022
mkdir -p "$(dirname "$1")"
umask 077
cat > "$1.new"
chmod "$2" "$1.new"
mv "$1.new" "$1"
"""


@dataclass(frozen=True)
class Completed:
    """What a command said and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def last_line(self) -> str:
        """The last thing it said: of a failed command, usually the cause."""
        lines = f"{self.stdout}\n{self.stderr}".split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class CommandFailed(OperatorError):
    """A command that should have succeeded didn't; carries its whole output."""

    def __init__(self, command: Sequence[str], completed: Completed) -> None:
        self.completed = completed
        super().__init__(f"{' '.join(command[:3])} … ended with {completed.code}",
                         completed.last_line)


class Machine(ABC):
    """A machine on which commands run, as root unless it is this one."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    @property
    def alive(self) -> bool:
        """Whether there is a way to it, as far as is known."""
        return True

    def pass_over(self) -> None:
        """Ask another one from now on, where this stands for several."""

    @property
    @abstractmethod
    def docker_host(self) -> str:
        """Where this program reaches its Engine's socket."""

    @property
    def docker_config(self) -> str:
        """The folder with the docker command's configuration."""
        return DOCKER_CONFIG

    @abstractmethod
    def run(self, command: Sequence[str], *, stdin: Input = None,
            env: Mapping[str, str] | None = None, cwd: PurePath | None = None,
            timeout: float | None = None) -> Completed:
        """Run a command to its end and return what came of it, failed or not.

        `timeout` is in seconds; a command that takes longer is killed and returns
        code 124, as timeout(1) does. A command that doesn't exist returns 127, and one
        that can't be run 126, as in a shell.
        """

    @abstractmethod
    def holding(self, folder: Path) -> AbstractContextManager[PurePath]:
        """Have a folder of this program's machine there, for a while, and give its path."""

    @abstractmethod
    def exclusively(self, lock: str) -> AbstractContextManager[None]:
        """Hold a lock file, which is freed however this program ends; raises Locked."""

    def must(self, command: Sequence[str], *, stdin: Input = None,
             env: Mapping[str, str] | None = None, cwd: PurePath | None = None,
             timeout: float | None = None) -> str:
        """Run a command that has to succeed and return its output.

        Raises CommandFailed.
        """
        done = self.run(command, stdin=stdin, env=env, cwd=cwd, timeout=timeout)
        if not done.ok:
            raise CommandFailed(command, done)
        return done.stdout

    def read(self, path: str) -> str | None:
        """Return a text file's content, or None if there is no such file."""
        done = self.run(["cat", path])
        return done.stdout if done.ok else None

    def write(self, path: str, text: str, mode: str = "0644") -> bool:
        """Give a file this content, folders included; return whether it had another before."""
        if self.read(path) == text:
            return False
        self.must(["sh", "-c", WRITE, "write", path, mode], stdin=text)
        return True


def taken(name: str) -> Locked:
    """Return the error for a machine that another command is changing."""
    return Locked(f"another ./fab bootstrap is at work on {name}", "try again when it has ended")
