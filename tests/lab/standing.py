"""Keep one lab running between commands, in a background process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab import host
from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.lab.rootfs import cache_directory
from tests.lab.ssh import Connection, Keys

REPOSITORY = Path(__file__).parents[2]
# Building the root file system is part of the first start.
UP_TIMEOUT = 600.0
DOWN_TIMEOUT = 120.0


@dataclass(frozen=True)
class State:
    """The standing lab's process, its keys and its machines' names."""

    pid: int
    directory: str
    machines: dict[str, str]

    def save(self) -> None:
        """Write the state in one step, so that nobody reads a partial file."""
        partial = _path().with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        partial.rename(_path())


def up(machines: int) -> None:
    """Boot machines in the background and print how to reach them."""
    host.require()
    if (state := _running()) is not None:
        raise LabError(f"{len(state.machines)} machines are up; "
                       "end them first: ./fab lab.down")
    started = time.monotonic()
    cache_directory().mkdir(parents=True, exist_ok=True)
    with _log().open("w", encoding="utf-8") as log:
        holder = subprocess.Popen(
            [sys.executable, "-m", "tests.lab", "hold", str(machines)], cwd=REPOSITORY,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    _wait_for(holder)
    _describe(_need(), time.monotonic() - started)


def ssh(name: str, command: Sequence[str], user: str) -> None:
    """Replace this process by ssh to a machine of the standing lab."""
    state = _need()
    if name not in state.machines:
        raise LabError(f"no machine {name}; there are: {', '.join(state.machines)}")
    connection = Connection(state.machines[name], Keys(Path(state.directory)))
    # No shared connection: it would outlive the login, and `down` wouldn't know about it.
    options = ["-oControlPath=none", *connection.options()]
    os.execvp("ssh", ["ssh", *options, f"{user}@{connection.address}", *command])


def down() -> None:
    """End the standing lab and wait until nothing is left of it."""
    state = _need()
    os.kill(state.pid, signal.SIGTERM)
    host.wait_until(lambda: _running() is None, DOWN_TIMEOUT, "end of the lab")
    print("The lab is down.")


def hold(machines: int) -> None:
    """Boot the lab and keep it until SIGTERM."""
    try:
        with Lab() as lab:
            addresses = {machine.name: machine.address for machine in lab.boot(machines)}
            State(os.getpid(), str(lab.private_key.parent), addresses).save()
            signal.pause()
    except KeyboardInterrupt:
        print("The lab was told to end.")
    finally:
        _path().unlink(missing_ok=True)


def _wait_for(holder: subprocess.Popen[bytes]) -> None:
    """Wait until the holder's machines are up; Ctrl-C ends the holder too."""
    try:
        host.wait_until(lambda: _running() is not None or holder.poll() is not None,
                        UP_TIMEOUT, "start of the lab")
    except BaseException:
        holder.terminate()
        holder.wait()
        raise
    if holder.poll() is not None:
        raise LabError(f"the machines did not start: {_log().read_text(encoding='utf-8')}")


def _describe(state: State, seconds: float) -> None:
    print(f"{len(state.machines)} machines up in {seconds:.0f} s:")
    for name, address in state.machines.items():
        print(f"  {name}  {address}  ./fab lab.ssh --name {name}")
    print(f"SSH key: {Keys(Path(state.directory)).private}, user deploy")
    print("End them: ./fab lab.down")


def _running() -> State | None:
    """Return the standing lab's state; None if there is none or its process has died."""
    if not _path().exists():
        return None
    state = State(**json.loads(_path().read_text(encoding="utf-8")))
    command = Path(f"/proc/{state.pid}/cmdline")
    alive = command.exists() and b"tests.lab\0hold" in command.read_bytes()
    return state if alive else None


def _need() -> State:
    state = _running()
    if state is None:
        raise LabError("no machines are up: ./fab lab.up")
    return state


def _path() -> Path:
    return cache_directory() / "standing.json"


def _log() -> Path:
    return cache_directory() / "standing.log"
