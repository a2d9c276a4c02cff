"""Where images are kept so that every node finds them: on the one machine, or in a registry."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import docker
from docker.errors import APIError

from stack import images, registry, settings, swarm_registry
from stack.console import Step
from stack.engine import DockerCli
from stack.errors import Refused
from stack.fleet import Fleet, Member
from stack.images import PREFIX, Build
from stack.inventory import Inventory
from stack.machine import Machine
from stack.registry import Registry

PORT = 5000
REGISTRY_FILES = settings.ROOT / "stack/images/registry"


class Store(ABC):
    """Keeps images under names that begin with `prefix`."""

    prefix: str
    _client: docker.DockerClient

    @abstractmethod
    def check(self) -> None:
        """See that images can be kept and fetched; raises Refused."""

    @abstractmethod
    def has(self, reference: str) -> bool:
        """Tell whether nodes can run an image of this name."""

    @abstractmethod
    def keep(self, builds: Sequence[Build]) -> None:
        """Make images that were just built known to every node."""

    @abstractmethod
    def reference(self, tag: str) -> str:
        """Return the name by which services run what is kept under a tag."""

    @abstractmethod
    def fetch(self, tag: str) -> None:
        """Have an image in the engine, if it is kept at all."""

    def _credentials_for(self, image: str) -> dict[str, str] | None:
        """Return what to log in with where an image is kept, if that is known."""
        return None

    def pinned(self, named: str) -> str:
        """Return an image that somebody else built by its digest; raises Refused without one."""
        try:
            digest = str(self._client.images.get_registry_data(
                named, auth_config=self._credentials_for(named)).id)
        except APIError as error:
            raise Refused(f"the image {named} can't be found "
                          f"({registry.cause_of(str(error.explanation))})",
                          "correct images in the inventory") from error
        return named if "@" in named else f"{named}@{digest}"

    def missing(self, builds: Iterable[Build]) -> list[Build]:
        """Return what is yet to be built or kept."""
        return [build for build in builds if not self.has(build.tag)]


class LocalStore(Store):
    """The engine of the one machine that there is."""

    prefix = PREFIX

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client

    def check(self) -> None:
        """Nothing stands between the machine and its own images."""

    def pinned(self, named: str) -> str:
        # One that was made or loaded here may be in no registry.
        return named if self.has(named) else super().pinned(named)

    def has(self, reference: str) -> bool:
        return images.image_id(self._client, reference) != ""

    def keep(self, builds: Sequence[Build]) -> None:
        """Built is kept, here."""

    def fetch(self, tag: str) -> None:
        """Kept is in the engine."""

    def reference(self, tag: str) -> str:
        return tag


class RegistryStore(Store):
    """A registry, of the Swarm's own or another."""

    def __init__(self, client: docker.DockerClient, cli: DockerCli, kept_in: Registry) -> None:
        self._client, self._cli, self.registry = client, cli, kept_in
        self.prefix = kept_in.prefix

    def check(self) -> None:
        if self.registry.user:
            registry.check(self._client, self.registry)

    def has(self, reference: str) -> bool:
        return self._digest(reference) != ""

    def keep(self, builds: Sequence[Build]) -> None:
        """Push images side by side; raises Refused with what the registry said."""
        with ThreadPoolExecutor(max_workers=len(builds) or 1) as pool:
            results = list(pool.map(lambda build: self._cli.push(build.tag), builds))
        for build, done in zip(builds, results):
            if not done.ok:
                raise Refused(f"{build.tag} could not be pushed ({done.last_line})",
                              "nothing was changed; mend the registry, then ./fab deploy")

    def reference(self, tag: str) -> str:
        return f"{tag}@{self._digest(tag)}"

    def fetch(self, tag: str) -> None:
        if not images.image_id(self._client, tag) and self.has(tag):
            self._client.images.pull(tag, auth_config=self._credentials)

    @property
    def _credentials(self) -> dict[str, str] | None:
        if not self.registry.user:
            return None
        return {"username": self.registry.user, "password": self.registry.password}

    def _credentials_for(self, image: str) -> dict[str, str] | None:
        return self._credentials if image.startswith(f"{self.registry.host}/") else None

    def _digest(self, reference: str) -> str:
        """Return an image's digest in the registry, or "" if it has none of that name."""
        try:
            return str(self._client.images.get_registry_data(
                reference, auth_config=self._credentials).id)
        except APIError as error:
            said = str(error.explanation)
            if "manifest unknown" in said or "not found" in said or "name unknown" in said:
                return ""
            raise Refused(f"the registry {self.registry.host}: {registry.cause_of(said)}",
                          "./fab bootstrap, then the same command again") from error


def of(machines: Fleet, client: docker.DockerClient, machine: Machine) -> Store:
    """Return where this fleet's images are kept."""
    if machines.inventory is None or not uses_registry(machines.inventory):
        return LocalStore(client)
    kept_in = _named(machines.inventory) or _own(machines.inventory, machine)
    return RegistryStore(client, DockerCli(machine, registry.DOCKER_CONFIG), kept_in)


def uses_registry(chosen: Inventory) -> bool:
    """Tell whether images go through a registry: with several nodes they have to."""
    return chosen.registry is not None or chosen.needs_own_registry


def _named(chosen: Inventory) -> Registry | None:
    """Return the registry that an inventory names, with its password."""
    named = chosen.registry
    if named is None:
        return None
    try:
        ca = named.ca.read_text(encoding="utf-8") if named.ca else ""
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"registry.ca, {named.ca}, can't be read", str(error)) from error
    return Registry(named.address, named.user or "", settings.registry_password(named) or "", ca)


def _own(chosen: Inventory, manager: Machine) -> Registry:
    """Return the Swarm's own registry, with the password that its managers know."""
    address = own_address(chosen)
    known = registry.read_credentials(manager, address)
    if known is None:
        raise Refused(f"{manager.name} doesn't know the registry's password",
                      "./fab bootstrap brings it")
    return Registry(address, *known)


def own_address(chosen: Inventory) -> str:
    """Return where the Swarm's own registry listens."""
    holder = next(node for node in chosen.nodes if node.labels.get("registry") == "true")
    return f"{holder.private}:{PORT}"


def ensure(machines: Fleet, client: docker.DockerClient, builder: Member,
           current: Step) -> list[str]:
    """See that every node trusts, knows and reaches the registry; return what was changed."""
    assert machines.inventory is not None
    nodes = [member.machine for member in machines.members]
    managers = [member.machine for member in machines.managers]
    if named := _named(machines.inventory):
        changes = swarm_registry.on_each(
            nodes, lambda machine: registry.trust(machine, named), "trust")
        changes += swarm_registry.on_each(
            managers, lambda machine: registry.give_credentials(machine, named), "credentials")
        if named.user:
            registry.check(client, named)
        return changes
    image = _own_image(builder, current)
    _, changes = swarm_registry.ensure(
        client, DockerCli(builder.machine), builder.membership().node_id, nodes, managers,
        own_address(machines.inventory), image)
    return changes


def _own_image(builder: Member, current: Step) -> str:
    """Build what the registry itself runs, unless it is there; return its name."""
    client = builder.client
    build = images.registry_build(REGISTRY_FILES, images.image_id(client, images.BASE))
    if not images.image_id(client, build.tag):
        current.doing("building it")
        with builder.machine.holding(REGISTRY_FILES) as files:
            images.build(DockerCli(builder.machine), files, [build])
    return build.tag
