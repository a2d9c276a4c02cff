"""Access a registry: its address, its credentials, and trust in its CA."""

import base64
import json
import re
from dataclasses import dataclass, field

import bcrypt

from stack.engine.engine import Engine
from stack.engine.failures import ApiError
from stack.errors import Refused
from stack.machines.machine import DOCKER_CONFIG, Machine

CREDENTIALS = f"{DOCKER_CONFIG}/config.json"
# The engine reads it at each connection: a new CA needs no restart.
CA = "/etc/docker/certs.d/{host}/ca.crt"
# The registry computes the hash for every request. Stretching is for passwords that
# people choose; these are random, with as many bits as the hash.
BCRYPT_ROUNDS = 4
# Engines' errors about a registry, and their causes.
CAUSES = (
    (r"\b40[13]\b|unauthorized|incorrect username|denied", "it rejects the password"),
    (r"no basic auth credentials", "it requires a password"),
    (r"HTTP response to HTTPS client|not look like a TLS handshake", "it doesn't use TLS"),
    (r"certificate has expired", "its certificate has expired"),
    (r"signed by unknown authority|certificate is not trusted", "its certificate isn't trusted"),
    (r"certificate is (not )?valid for|any IP SANs", "its certificate is for another address"),
    (r"connection refused", "nothing is listening there"),
    (r"no such host|server misbehaving", "its name can't be resolved"),
    (r"no route to host|network is unreachable", "there is no route to it"),
    (r"timeout|deadline exceeded|timed out", "it doesn't answer"))


@dataclass(frozen=True)
class RegistryAccess:
    """A registry and its credentials; without `ca`, machines trust it already."""

    address: str
    user: str
    password: str = field(repr=False)
    ca: str = ""

    @property
    def prefix(self) -> str:
        """The prefix of image names."""
        return f"{self.address}/tally"

    @property
    def host(self) -> str:
        """The host and port, to which credentials and trust apply."""
        return self.address.partition("/")[0]


def htpasswd(user: str, password: str) -> str:
    """Return a user's htpasswd line, with a new salt each time."""
    line = bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_ROUNDS)).decode()
    return f"{user}:{line}\n"


def docker_config(registry: RegistryAccess) -> str:
    """Return a docker client's config.json with the registry's credentials, if it has any."""
    auth = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    auths = {registry.host: {"auth": auth}} if registry.user else {}
    return json.dumps({"auths": auths}, indent=2) + "\n"


def trust(machine: Machine, registry: RegistryAccess) -> bool:
    """Make an engine trust the registry's CA for its address; return whether it changed."""
    return bool(registry.ca) and machine.write(CA.format(host=registry.host), registry.ca)


def give_credentials(machine: Machine, registry: RegistryAccess) -> bool:
    """Give root's docker command the registry's credentials; return whether they changed."""
    config = docker_config(registry)
    if machine.read(CREDENTIALS) == config:
        return False
    machine.must(["install", "--directory", "--mode=0700", DOCKER_CONFIG])
    return machine.write(CREDENTIALS, config, mode="0600")


def read_credentials(machine: Machine, host: str) -> tuple[str, str] | None:
    """Return a machine's user and password for a registry, or None."""
    return parse_credentials(machine.read(CREDENTIALS) or "{}", host)


def parse_credentials(config: str, host: str) -> tuple[str, str] | None:
    """Find a registry's user and password in a config.json; a broken file gives None."""
    try:
        auth = json.loads(config)["auths"][host]["auth"]
        user, colon, password = base64.b64decode(auth).decode().partition(":")
    except (KeyError, TypeError, ValueError):
        return None
    return (user, password) if user and colon else None


def check(engine: Engine, registry: RegistryAccess) -> None:
    """Check that the engine can log in; raises Refused with the cause."""
    try:
        engine.log_in(registry.host, registry.user, registry.password)
    except ApiError as error:
        cause = cause_of(error.explanation)
        raise Refused(f"the registry {registry.host}: {cause}",
                      "./fab bootstrap repairs the Swarm's own; for another, correct the "
                      "inventory") from error


def cause_of(said: str) -> str:
    """Say in plain words why an engine can't use a registry."""
    return next((cause for sign, cause in CAUSES if re.search(sign, said, re.IGNORECASE)),
                said.strip())
