"""Run the docker command, for what the SDK lacks: BuildKit, stacks and pushes."""

import re
from functools import cached_property
from pathlib import PurePath
from typing import Any

from stack.errors import Refused
from stack.machines import docker_command
from stack.machines.docker_command import HOST
from stack.machines.machine import Completed, Machine

# Seconds until an engine that has accepted no stack, or removed none, is given up.
STACK_TIMEOUT = 120
# A build of the client without a number is a new one, which needs the plugin.
UNKNOWN_MAJOR = 999


class DockerCli:
    """The docker command, for building with BuildKit and for stacks.

    If it `uses_registry`, the machine's configuration has the credentials.
    """

    def __init__(self, machine: Machine, uses_registry: bool = False) -> None:
        self.machine = machine
        self._uses_registry = uses_registry
        self.commands = machine.run(["which", "-a", "docker"]).stdout.split()
        if not self.commands:
            raise Refused(f"there is no docker command on {machine.name}",
                          "./fab bootstrap installs it")

    @property
    def authenticated(self) -> list[str]:
        """What has `docker stack deploy` give the nodes the credentials for the registry."""
        return ["--with-registry-auth"] if self._uses_registry else []

    def stack(self, *arguments: str, stdin: str | None = None, host: str = HOST) -> Completed:
        """Run `docker stack …`, against the machine's engine unless `host` names another."""
        return self._run(self.commands[0], "stack", *arguments, stdin=stdin, host=host,
                         timeout=STACK_TIMEOUT)

    def build(self, *arguments: str, cwd: PurePath) -> Completed:
        """Run `docker build …` with BuildKit."""
        return self._run(self.builder, "build", "--progress=plain", *arguments, cwd=cwd)

    def push(self, tag: str) -> Completed:
        """Run `docker push`."""
        return self._run(self.commands[0], "push", "--quiet", tag)

    @cached_property
    def builder(self) -> str:
        """The first docker command that can build with BuildKit.

        From version 23 on the command needs its buildx plugin for that; a client
        without it may stand before the distribution's own on PATH.
        """
        for command in self.commands:
            if self._run(command, "buildx", "version").ok or self._major(command) < 23:
                return command
        raise Refused("no docker command here can build with BuildKit",
                      "apt-get install docker-buildx")

    def _major(self, command: str) -> int:
        # The client answers this, so it counts even where the engine doesn't.
        said = self._run(command, "version", "--format", "{{.Client.Version}}").stdout
        found = re.match(r"[0-9]+", said)
        return int(found[0]) if found else UNKNOWN_MAJOR

    def _run(self, command: str, *arguments: str, **options: Any) -> Completed:
        return docker_command.run(self.machine, *arguments, command=command, **options)
