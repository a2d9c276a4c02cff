"""Reach the Docker Engine, through its SDK and, for what that lacks, its CLI."""

import functools
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import docker
import requests
from docker.errors import DockerException

from stack.errors import OperatorError, Refused
from stack.machine import Completed, LocalMachine

P = ParamSpec("P")
R = TypeVar("R")
SOCKET = Path("/var/run/docker.sock")
HOST = f"unix://{SOCKET}"
# Jobs came with API 1.41, Docker 20.10: the oldest that a migration can run on.
OLDEST_API = (1, 41)


def connect(timeout: float = 60) -> docker.DockerClient:
    """Return a client of the local engine; `timeout` is in seconds.

    Raises Refused if no engine answers, or if it is too old.
    """
    try:
        client = docker.DockerClient(base_url=HOST, version="auto",
                                     timeout=int(timeout))
    except (DockerException, requests.RequestException) as error:
        raise Refused(f"the Docker Engine doesn't answer ({_cause(error)})",
                      "./fab bootstrap installs and starts it") from error
    check_api(client.version()["ApiVersion"], client.version()["Version"])
    return client


def check_api(api: str, engine: str) -> None:
    """Refuse an engine that is too old to run migrations as jobs."""
    if tuple(int(part) for part in api.split(".")) < OLDEST_API:
        raise Refused(f"Docker {engine} is too old: its API is {api}, at least 1.41 is needed",
                      "upgrade to Docker 20.10 or newer, then ./fab bootstrap")


def answers() -> bool:
    """Tell whether an engine listens on the local socket."""
    try:
        docker.DockerClient(base_url=HOST, version="auto", timeout=10).close()
    except (DockerException, requests.RequestException):
        return False
    return True


def in_one_line(command: Callable[P, R]) -> Callable[P, R]:
    """Let an engine that fails in the middle end the command with one line."""
    @functools.wraps(command)
    def reported(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted: run the same command again\n")
            raise SystemExit(130) from None
        except (DockerException, requests.RequestException) as error:
            raise OperatorError(f"the Docker Engine failed in the middle ({_cause(error)})",
                                "./fab status, then the same command again") from error
    return reported


def _cause(error: Exception) -> str:
    text = str(error)
    for sign, cause in (("Permission denied", "this user may not open its socket"),
                        ("No such file", "there is no socket"),
                        ("Connection refused", "nothing listens on its socket")):
        if sign in text:
            return cause
    return text.splitlines()[0][:120]


# A build of the client without a number is a new one, which needs the plugin.
UNKNOWN_MAJOR = 999


class DockerCli:
    """The docker command, for building with BuildKit and for stacks."""

    def __init__(self, machine: LocalMachine, path: str | None = None) -> None:
        self.machine = machine
        folders = os.environ.get("PATH", "") if path is None else path
        self.commands = [str(Path(folder, "docker")) for folder in folders.split(os.pathsep)
                         if shutil.which("docker", path=folder)]
        if not self.commands:
            raise Refused("there is no docker command", "./fab bootstrap installs it")

    def stack(self, *arguments: str, stdin: str | None = None, host: str = HOST) -> Completed:
        """Run `docker stack …`, against the local engine unless `host` names another."""
        return self._run(self.commands[0], ["stack", *arguments], stdin=stdin, host=host)

    def service_logs(self, *arguments: str) -> list[str]:
        """Return the command that follows a service's logs."""
        return [self.commands[0], "--host", HOST, "service", "logs", *arguments]

    def build(self, *arguments: str, cwd: Path) -> Completed:
        """Run `docker build …` with BuildKit."""
        return self._run(self.builder(), ["build", "--progress=plain", *arguments], cwd=cwd)

    def builder(self) -> str:
        """Return the first docker command that can build with BuildKit.

        From version 23 on the command needs its buildx plugin for that; a client
        without it may stand before the distribution's own on PATH.
        """
        for command in self.commands:
            if self._major(command) < 23 or self._run(command, ["buildx", "version"]).ok:
                return command
        raise Refused("no docker command here can build with BuildKit",
                      "apt-get install docker-buildx")

    def _major(self, command: str) -> int:
        # The client answers this, so it counts even where the engine doesn't.
        said = self._run(command, ["version", "--format", "{{.Client.Version}}"]).stdout
        found = re.match(r"[0-9]+", said)
        return int(found[0]) if found else UNKNOWN_MAJOR

    def _run(self, command: str, arguments: list[str], *, stdin: str | None = None,
             cwd: Path | None = None, host: str = HOST) -> Completed:
        return self.machine.run([command, "--host", host, *arguments], stdin=stdin, cwd=cwd,
                                env={"DOCKER_BUILDKIT": "1"})
