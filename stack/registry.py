"""Know a registry: its address, who may use it, and how machines come to trust it."""

import base64
import json
import re
from dataclasses import dataclass, field

import bcrypt
import docker
from docker.errors import APIError

from stack.errors import Refused
from stack.machine import Machine

# The docker command's own folder on a machine, so that nobody's ~/.docker has a say:
# docker --config /etc/tally/docker push …
DOCKER_CONFIG = "/etc/tally/docker"
CREDENTIALS = f"{DOCKER_CONFIG}/config.json"
# The engine reads it at each connection: a new one needs no restart.
CA = "/etc/docker/certs.d/{host}/ca.crt"
# The registry computes it for every request. Stretching is for passwords that people
# choose; these are random, and have as many bits as the hash.
BCRYPT_ROUNDS = 4
# What engines say of a registry that they can't use, and what is behind it.
CAUSES = (
    (r"\b40[13]\b|unauthorized|incorrect username|denied", "it refuses the password"),
    (r"no basic auth credentials", "it asks for a password"),
    (r"HTTP response to HTTPS client|not look like a TLS handshake", "it speaks no TLS"),
    (r"certificate has expired", "its certificate is out of date"),
    (r"signed by unknown authority|certificate is not trusted", "its certificate isn't trusted"),
    (r"certificate is (not )?valid for|any IP SANs", "its certificate is for another address"),
    (r"connection refused", "nothing listens there"),
    (r"no such host|server misbehaving", "its name isn't known"),
    (r"no route to host|network is unreachable", "there is no way to it"),
    (r"timeout|deadline exceeded|timed out", "it doesn't answer"))


@dataclass(frozen=True)
class Registry:
    """A registry and who this project is there; without `ca`, everybody trusts it already."""

    address: str
    user: str
    password: str = field(repr=False)
    ca: str = ""

    @property
    def prefix(self) -> str:
        """What the names of images begin with."""
        return f"{self.address}/tally"

    @property
    def host(self) -> str:
        """The host and the port: what credentials and trust belong to."""
        return self.address.partition("/")[0]


def htpasswd(user: str, password: str) -> str:
    """Return the line by which the registry knows a user, different each time."""
    line = bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_ROUNDS)).decode()
    return f"{user}:{line}\n"


def docker_config(registry: Registry) -> str:
    """Return a docker client's config.json with the registry's credentials, if it has any."""
    auth = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    auths = {registry.host: {"auth": auth}} if registry.user else {}
    return json.dumps({"auths": auths}, indent=2) + "\n"


def trust(machine: Machine, registry: Registry) -> bool:
    """Let a machine's engine trust the registry's CA, for that address only; tell if it's new."""
    return bool(registry.ca) and machine.write(CA.format(host=registry.host), registry.ca)


def give_credentials(machine: Machine, registry: Registry) -> bool:
    """Let root's docker command on a machine log in at the registry; tell whether it's new."""
    config = docker_config(registry)
    if machine.read(CREDENTIALS) == config:
        return False
    machine.must(["install", "--directory", "--mode=0700", DOCKER_CONFIG])
    return machine.write(CREDENTIALS, config, mode="0600")


def read_credentials(machine: Machine, host: str) -> tuple[str, str] | None:
    """Return the user and the password that a machine has for a registry, if it has them."""
    return parse_credentials(machine.read(CREDENTIALS) or "{}", host)


def parse_credentials(config: str, host: str) -> tuple[str, str] | None:
    """Find a registry's user and password in a config.json; a broken file has none."""
    try:
        auth = json.loads(config)["auths"][host]["auth"]
        user, colon, password = base64.b64decode(auth).decode().partition(":")
    except (KeyError, TypeError, ValueError):
        return None
    return (user, password) if user and colon else None


def check(client: docker.DockerClient, registry: Registry) -> None:
    """See that the engine can log in; raises Refused with what stands in the way."""
    try:
        client.login(registry.user, registry.password, registry=registry.host, reauth=True)
    except APIError as error:
        cause = cause_of(str(error.explanation))
        raise Refused(f"the registry {registry.host}: {cause}",
                      "./fab bootstrap mends the Swarm's own; correct another's in the "
                      "inventory") from error


def cause_of(said: str) -> str:
    """Say in plain words why an engine can't use a registry."""
    return next((cause for sign, cause in CAUSES if re.search(sign, said, re.IGNORECASE)),
                said.strip())
