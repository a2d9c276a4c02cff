"""The docker command of a machine. Every call of it is made here, and reaches the engine there.

DOCKER_HOST and its like, or the context that somebody has chosen, would lead to another engine.
So the command gets a configuration of its own, and of the environment only PATH.
"""

import shlex
from pathlib import Path
from typing import Any

from stack.machines.machine import CommandFailed, Completed, Machine

SOCKET = Path("/var/run/docker.sock")
HOST = f"unix://{SOCKET}"
# BuildKit is the default only from version 23 on.
ALONE = 'exec env -i PATH="$PATH" DOCKER_BUILDKIT=1 "$@"'


def words(machine: Machine, *arguments: str, command: str = "docker",
          host: str = HOST) -> list[str]:
    """Return the words of a docker command, for run() or a shell on that machine.

    `command` is the path of one of several clients; `host` is the machine's engine unless it
    names another.
    """
    return ["sh", "-c", ALONE, "docker", command, "--config", machine.docker_config,
            "--host", host, *arguments]


def run(machine: Machine, *arguments: str, command: str = "docker", host: str = HOST,
        **options: Any) -> Completed:
    """Run a docker command to its end, with the options of Machine.run."""
    return machine.run(words(machine, *arguments, command=command, host=host), **options)


def must(machine: Machine, *arguments: str, **options: Any) -> str:
    """Run a docker command that has to succeed and return its output; raises CommandFailed."""
    done = run(machine, *arguments, **options)
    if not done.ok:
        raise CommandFailed(["docker", *arguments], done)
    return done.stdout


def script(machine: Machine, text: str) -> str:
    """Return a shell script with `docker` defined as this command."""
    return f'docker() {{ {shlex.join(words(machine))} "$@"; }}\n{text}'
