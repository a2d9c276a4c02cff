"""Run commands on the machine that ./fab runs on."""

import fcntl
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from stack.machines.docker_command import HOST
from stack.machines.machine import DOCKER_CONFIG, Completed, Input, Machine, taken


class LocalMachine(Machine):
    """The machine that this program runs on, without SSH."""

    name = "this machine"
    docker_host = HOST

    @property
    def docker_config(self) -> str:
        # Builds write there, and this user may not be root.
        return DOCKER_CONFIG if os.geteuid() == 0 else str(Path.home() / ".cache/tally/docker")

    def run(self, command: Sequence[str], *, stdin: Input = None,
            env: Mapping[str, str] | None = None, cwd: PurePath | None = None,
            timeout: float | None = None) -> Completed:
        try:
            done = subprocess.run(
                command, **_given(stdin), env={**os.environ, **(env or {})}, cwd=cwd,
                timeout=timeout, capture_output=True, text=True, errors="replace")
        except subprocess.TimeoutExpired:
            return Completed(124, "", f"no answer within {timeout:.0f} s")
        except FileNotFoundError as error:
            return Completed(127, "", f"{error.filename}: not found")
        except OSError as error:
            return Completed(126, "", f"{command[0]}: {error.strerror}")
        return Completed(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def holding(self, folder: Path) -> Iterator[PurePath]:
        yield folder

    @contextmanager
    def exclusively(self, lock: str) -> Iterator[None]:
        with open(lock, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise taken(self.name) from error
            yield


def _given(stdin: Input) -> dict[str, Any]:
    """Return what subprocess calls a command's input; without any, nobody is waited for."""
    if isinstance(stdin, str):
        return {"input": stdin}
    return {"stdin": subprocess.DEVNULL if stdin is None else stdin}
