"""Run commands on a machine: for now, the one that ./fab runs on."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stack.errors import OperatorError


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


class LocalMachine:
    """The machine that this program runs on, without SSH."""

    name = "this machine"

    def run(self, command: Sequence[str], *, stdin: str | None = None,
            env: Mapping[str, str] | None = None, cwd: Path | None = None,
            timeout: float | None = None) -> Completed:
        """Run a command to its end and return what came of it, failed or not.

        `timeout` is in seconds; a command that takes longer is killed and returns
        code 124, as timeout(1) does. A command that doesn't exist returns 127, and one
        that can't be run 126, as in a shell.
        """
        try:
            done = subprocess.run(
                command, input=stdin, env={**os.environ, **(env or {})}, cwd=cwd,
                timeout=timeout, capture_output=True, text=True, errors="replace",
                stdin=subprocess.DEVNULL if stdin is None else None)
        except subprocess.TimeoutExpired:
            return Completed(124, "", f"no answer within {timeout:.0f} s")
        except FileNotFoundError as error:
            return Completed(127, "", f"{error.filename}: not found")
        except OSError as error:
            return Completed(126, "", f"{command[0]}: {error.strerror}")
        return Completed(done.returncode, done.stdout, done.stderr)

    def must(self, command: Sequence[str], *, stdin: str | None = None,
             env: Mapping[str, str] | None = None, cwd: Path | None = None,
             timeout: float | None = None) -> str:
        """Run a command that has to succeed and return its output.

        Raises CommandFailed.
        """
        done = self.run(command, stdin=stdin, env=env, cwd=cwd, timeout=timeout)
        if not done.ok:
            raise CommandFailed(command, done)
        return done.stdout
