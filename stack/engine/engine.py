"""One Docker Engine, and all that it is asked for."""

from collections.abc import Sequence

import docker

from stack.engine import container_logs
from stack.engine.configs import Configs
from stack.engine.container_logs import ContainerLog
from stack.engine.failures import translated
from stack.engine.images import Images
from stack.engine.objects import Object, Objects

# Swarm gives each overlay network a part of its address pool, of this size.
SUBNET_SIZE = 24


class Engine:
    """A Docker Engine, reached through Docker's SDK.

    Whatever it is asked raises EngineError if the engine, or the way to it, fails. Nodes,
    services, tasks, networks and containers are as the Engine API has them.
    """

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self.nodes = Objects(client, "nodes")
        self.services = Objects(client, "services")
        self.tasks = Objects(client, "tasks")
        self.networks = Objects(client, "networks")
        self.configs = Configs(Objects(client, "configs"))
        self.secrets = Configs(Objects(client, "secrets"))
        self.images = Images(client)

    def close(self) -> None:
        """Close the connections; the next request opens a new one."""
        self._client.close()

    def ping(self) -> bool:
        """Return whether the engine answers as one."""
        with translated():
            return self._client.ping()

    def version(self) -> str:
        with translated():
            return str(self._client.version()["Version"])

    def info(self) -> Object:
        """Return what the engine says of itself and its Swarm, as the Engine API gives it."""
        with translated():
            info: Object = self._client.info()
            return info

    def init_swarm(self, address: str, port: int, pool: str) -> None:
        """Begin a Swarm whose other nodes find this one at an address.

        `pool` is the network from which overlay networks get their parts.
        """
        with translated():
            self._client.swarm.init(
                advertise_addr=address, data_path_addr=address, listen_addr=f"{address}:{port}",
                default_addr_pool=[pool], subnet_size=SUBNET_SIZE)

    def join_token(self, role: str) -> str:
        """Return the token with which nodes join the Swarm as a manager or a worker."""
        with translated():
            self._client.swarm.reload()
            return str(self._client.swarm.attrs["JoinTokens"][role.capitalize()])

    def join_swarm(self, managers: Sequence[str], token: str, address: str, port: int) -> None:
        """Join the Swarm of managers, which find this node at an address."""
        with translated():
            self._client.swarm.join(
                remote_addrs=[f"{manager}:{port}" for manager in managers], join_token=token,
                advertise_addr=address, data_path_addr=address, listen_addr=f"{address}:{port}")

    def leave_swarm(self) -> None:
        """Leave the Swarm, even as a manager."""
        with translated():
            self._client.swarm.leave(force=True)

    def log_in(self, registry: str, user: str, password: str) -> None:
        """Log in to a registry, whose images services can then use; raises ApiError."""
        with translated():
            self._client.login(user, password, registry=registry, reauth=True)

    def create_service(self, definition: Object) -> str:
        """Create a service and return its id; nodes get the credentials for its image."""
        with translated():
            return str(self._client.api.create_service(
                definition["TaskTemplate"], definition["Name"], definition["Labels"],
                definition["Mode"])["ID"])

    def container(self, container_id: str) -> Object:
        """Return one of this engine's containers; raises Missing."""
        with translated():
            container: Object = self._client.api.inspect_container(container_id)
            return container

    def log(self, container_id: str, tail: int | None, timeout: float) -> ContainerLog:
        """Return the last messages of a container without a terminal, or all; none if it is gone.

        Also raises EngineError after so many seconds of silence.
        """
        return container_logs.read(self._client, container_id, tail, timeout)
