"""What an inventory says, once it is read and found right."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

Role = Literal["manager", "worker"]
# The labels by which the stack files place services.
PLACEMENT = ("edge", "postgres", "registry")
# More managers than five only make every change wait for more of them.
MANAGERS = (1, 3, 5)
# What may run another image than the one that this checkout builds.
REPLACEABLE = ("postgres", "traefik", "socket-proxy")
MOST_REPLICAS = 100


@dataclass(frozen=True)
class Ssh:
    """How every node is reached; whatever is None, ssh's own config and the agent decide."""

    user: str | None = None
    port: int | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Registry:
    """The container registry that somebody else runs, and the way into it.

    `user` and `password_file` are both there or neither is. `ca` is the certificate of
    a private certificate authority.
    """

    address: str
    user: str | None = None
    password_file: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True)
class Ports:
    """Where Traefik listens on each edge node."""

    http: int = 80
    https: int = 443


@dataclass(frozen=True)
class Replicas:
    """How many tasks serve; None where nobody chose."""

    app: int | None = None


@dataclass(frozen=True)
class Host:
    """One machine: `host` is where SSH finds it, `private` where the other nodes do."""

    host: str
    role: Role
    private: IPv4Address | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Inventory:
    """The machines of one Swarm, in the file's order and with every label decided.

    `images` names the image of each service that doesn't run the one built here.
    """

    name: str
    nodes: tuple[Host, ...]
    domain: str | None = None
    ssh: Ssh = Ssh()
    registry: Registry | None = None
    images: Mapping[str, str] = field(default_factory=dict, hash=False)
    ports: Ports = Ports()
    replicas: Replicas = Replicas()

    @property
    def managers(self) -> tuple[Host, ...]:
        return tuple(host for host in self.nodes if host.role == "manager")

    @property
    def uses_registry(self) -> bool:
        """Return whether images go through a registry: with several nodes they have to."""
        return self.registry is not None or self.needs_own_registry

    @property
    def needs_own_registry(self) -> bool:
        """Return whether images reach the nodes through a registry that the Swarm runs."""
        return len(self.nodes) > 1 and self.registry is None
