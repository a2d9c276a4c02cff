"""Reach the Docker Engine."""

import os
from pathlib import Path
from typing import Any

import docker
from docker.transport import UnixHTTPAdapter

from stack.engine.engine import Engine
from stack.engine.failures import EngineError, cause_of, translated
from stack.errors import Refused
from stack.machines.machine import Machine

# An empty configuration. The SDK would read ~/.docker/config.json, and ask its credential
# helpers for each registry.
NO_CONFIGURATION = Path(__file__).with_name("no-configuration")
# Jobs came with API 1.41, Docker 20.10: the oldest that a migration can run on.
OLDEST_API = (1, 41)


class NoAnswer(Refused):
    """There is no engine, or it doesn't run."""


def connect(machine: Machine, timeout: float = 60) -> Engine:
    """Return a machine's engine; `timeout` is in seconds.

    Raises Refused if no engine answers, or if it is too old.
    """
    pool = OnePool(machine.docker_host.replace("unix:", "http+unix:"), int(timeout))
    try:
        with translated():
            # A path without a version is answered by an engine of any.
            told = _client(machine, pool, "1.41").api.version(api_version=False)
    except EngineError as error:
        raise NoAnswer(f"the Docker Engine of {machine.name} doesn't answer ({cause_of(error)})",
                       "./fab bootstrap installs and starts it") from error
    check_api(told["ApiVersion"], told["Version"])
    return Engine(_client(machine, pool, told["ApiVersion"]))


class OnePool(UnixHTTPAdapter):
    """Keep connections for the next request, whatever its path.

    The SDK keeps some for each URL. Through a tunnel each is a session, of which sshd
    allows ten, and takes a moment to open.
    """

    def get_connection(self, url: object, proxies: object = None) -> Any:
        return super().get_connection(self.socket_path, proxies)


def _client(machine: Machine, pool: OnePool, api: str) -> docker.DockerClient:
    """Return a client that has yet to connect, and does so through the pool."""
    client = _sdk(machine, api, int(pool.timeout))
    client.api.mount("http+docker://", pool)
    return client


def _sdk(machine: Machine, api: str, timeout: int) -> docker.DockerClient:
    """Return the SDK's client, without the configuration of whoever runs this program."""
    # Set for good: the SDK reads it again before each request to a registry.
    os.environ["DOCKER_CONFIG"] = str(NO_CONFIGURATION)
    return docker.DockerClient(base_url=machine.docker_host, version=api, timeout=timeout)


def check_api(api: str, engine: str) -> None:
    """Refuse an engine that is too old to run migrations as jobs."""
    if tuple(int(part) for part in api.split(".")) < OLDEST_API:
        raise Refused(f"Docker {engine} is too old: its API is {api}, at least 1.41 is needed",
                      "upgrade to Docker 20.10 or newer, then ./fab bootstrap")


def answers(machine: Machine) -> bool:
    """Return whether an engine listens on a machine's socket."""
    try:
        with translated():
            _sdk(machine, "auto", timeout=10).close()
    except EngineError:
        return False
    return True
