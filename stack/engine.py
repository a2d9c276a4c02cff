"""Reach the Docker Engine, through its SDK and, for what that lacks, its CLI."""

import re
import sys
from collections.abc import Callable
from functools import cached_property, wraps
from pathlib import Path, PurePath
from typing import Any, ParamSpec, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException
from docker.transport import UnixHTTPAdapter

from stack.errors import INTERRUPTED, OperatorError, Refused
from stack.machine import Completed, Machine

P = ParamSpec("P")
R = TypeVar("R")
SOCKET = Path("/var/run/docker.sock")
# On the machine itself; `docker_host` is where this program finds it.
HOST = f"unix://{SOCKET}"
# Jobs came with API 1.41, Docker 20.10: the oldest that a migration can run on.
OLDEST_API = (1, 41)
# What an engine, or the way to it, may fail with.
FAILURES = (OperatorError, DockerException, requests.RequestException)
# How Docker says that the managers have no majority, or are electing a leader.
LEADERLESS = "does not have a leader"
# Seconds until an engine that has accepted no stack, or removed none, is given up.
STACK_TIMEOUT = 120


class NoAnswer(Refused):
    """There is no engine, or it doesn't run."""


def connect(machine: Machine, timeout: float = 60) -> docker.DockerClient:
    """Return a client of a machine's engine; `timeout` is in seconds.

    Raises Refused if no engine answers, or if it is too old.
    """
    pool = OnePool(machine.docker_host.replace("unix:", "http+unix:"), int(timeout))
    try:
        # A path without a version is answered by an engine of any.
        told = _client(machine, pool, "1.41").api.version(api_version=False)
    except (DockerException, requests.RequestException) as error:
        raise NoAnswer(f"the Docker Engine of {machine.name} doesn't answer ({cause_of(error)})",
                       "./fab bootstrap installs and starts it") from error
    check_api(told["ApiVersion"], told["Version"])
    return _client(machine, pool, told["ApiVersion"])


class OnePool(UnixHTTPAdapter):
    """Keep connections for the next request, whatever its path.

    The SDK keeps some for each URL. Through a tunnel each is a session, of which sshd
    allows ten, and takes a moment to open.
    """

    def get_connection(self, url: object, proxies: object = None) -> Any:
        return super().get_connection(self.socket_path, proxies)


def _client(machine: Machine, pool: OnePool, api: str) -> docker.DockerClient:
    """Return a client that has yet to connect, and does so through the pool."""
    client = docker.DockerClient(base_url=machine.docker_host, version=api,
                                 timeout=int(pool.timeout))
    client.api.mount("http+docker://", pool)
    return client


def check_api(api: str, engine: str) -> None:
    """Refuse an engine that is too old to run migrations as jobs."""
    if tuple(int(part) for part in api.split(".")) < OLDEST_API:
        raise Refused(f"Docker {engine} is too old: its API is {api}, at least 1.41 is needed",
                      "upgrade to Docker 20.10 or newer, then ./fab bootstrap")


def redefine(client: docker.DockerClient, path: str, changed: dict[str, Any]) -> None:
    """Give an object of the Swarm, such as configs/ID, the definition that was changed in it.

    The SDK lacks this or rewrites half of it; its client is a requests session. Raises
    requests.HTTPError, also if somebody else changed the object meanwhile.
    """
    client.api.post(f"{client.api.base_url}/v{client.api.api_version}/{path}/update",
                    params={"version": changed["Version"]["Index"]}, json=changed["Spec"],
                    timeout=10).raise_for_status()


def answers(machine: Machine) -> bool:
    """Tell whether an engine listens on a machine's socket."""
    try:
        docker.DockerClient(base_url=machine.docker_host, version="auto", timeout=10).close()
    except (DockerException, requests.RequestException):
        return False
    return True


def in_one_line(command: Callable[P, R]) -> Callable[P, R]:
    """Let an engine that fails in the middle end the command with one line."""
    @wraps(command)
    def reported(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted: run the same command again\n")
            raise SystemExit(INTERRUPTED) from None
        except (DockerException, requests.RequestException) as error:
            raise OperatorError(f"the Docker Engine failed in the middle ({cause_of(error)})",
                                "./fab status, then the same command again") from error
    return reported


def cause_of(error: Exception) -> str:
    """Say in a few words why an engine couldn't do what it was asked."""
    if isinstance(error, OperatorError):
        return error.cause
    text = str(isinstance(error, APIError) and error.explanation or error)
    for sign, cause in ((LEADERLESS, "the Swarm has no leader"),
                        ("Permission denied", "this user may not open its socket"),
                        ("No such file", "there is no socket"),
                        ("Connection refused", "nothing listens on its socket"),
                        ("timed out", "the engine doesn't answer"),
                        ("Connection aborted", "the connection ended"),
                        ("Connection broken", "the connection ended")):
        if sign in text:
            return cause
    return (text.splitlines() or [type(error).__name__])[0][:120]


# A build of the client without a number is a new one, which needs the plugin.
UNKNOWN_MAJOR = 999


class DockerCli:
    """The docker command, for building with BuildKit and for stacks."""

    def __init__(self, machine: Machine, config: str = "") -> None:
        self.machine = machine
        # The folder with credentials for a registry, if there is one.
        self._options = ["--config", config] if config else []
        self.commands = machine.run(["which", "-a", "docker"]).stdout.split()
        if not self.commands:
            raise Refused(f"there is no docker command on {machine.name}",
                          "./fab bootstrap installs it")

    @property
    def authenticated(self) -> list[str]:
        """What has `docker stack deploy` give the nodes the credentials for the registry."""
        return ["--with-registry-auth"] if self._options else []

    def stack(self, *arguments: str, stdin: str | None = None, host: str = HOST) -> Completed:
        """Run `docker stack …`, against the machine's engine unless `host` names another."""
        return self._run(self.commands[0], ["stack", *arguments], stdin=stdin, host=host,
                         timeout=STACK_TIMEOUT)

    def build(self, *arguments: str, cwd: PurePath) -> Completed:
        """Run `docker build …` with BuildKit."""
        return self._run(self.builder, ["build", "--progress=plain", *arguments], cwd=cwd)

    def push(self, tag: str) -> Completed:
        """Run `docker push`."""
        return self._run(self.commands[0], ["push", "--quiet", tag])

    @cached_property
    def builder(self) -> str:
        """The first docker command that can build with BuildKit.

        From version 23 on the command needs its buildx plugin for that; a client
        without it may stand before the distribution's own on PATH.
        """
        for command in self.commands:
            if self._run(command, ["buildx", "version"]).ok or self._major(command) < 23:
                return command
        raise Refused("no docker command here can build with BuildKit",
                      "apt-get install docker-buildx")

    def _major(self, command: str) -> int:
        # The client answers this, so it counts even where the engine doesn't.
        said = self._run(command, ["version", "--format", "{{.Client.Version}}"]).stdout
        found = re.match(r"[0-9]+", said)
        return int(found[0]) if found else UNKNOWN_MAJOR

    def _run(self, command: str, arguments: list[str], *, stdin: str | None = None,
             cwd: PurePath | None = None, host: str = HOST,
             timeout: float | None = None) -> Completed:
        return self.machine.run([command, *self._options, "--host", host, *arguments],
                                stdin=stdin, cwd=cwd, env={"DOCKER_BUILDKIT": "1"},
                                timeout=timeout)
