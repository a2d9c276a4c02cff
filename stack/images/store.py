"""Keep images where every node finds them: on the single machine, or in a registry."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from stack.engine.cli import DockerCli
from stack.engine.engine import Engine
from stack.engine.failures import ApiError
from stack.engine.images import Credentials
from stack.errors import Refused
from stack.images import base, builds, own_registry, registry_access
from stack.images.base import PREFIX
from stack.images.builds import Build
from stack.images.registry_access import RegistryAccess
from stack.images.snapshot import snapshot
from stack.inventory import Inventory, settings
from stack.machines.local import LocalMachine
from stack.machines.machine import Machine
from stack.progress import Step
from stack.swarm.fleet import Fleet, Member

PORT = 5000


class Store(ABC):
    """Keeps images under names with `prefix`."""

    prefix: str
    _engine: Engine

    @abstractmethod
    def check(self) -> None:
        """Check that images can be kept and fetched; raises Refused."""

    @abstractmethod
    def has(self, reference: str) -> bool:
        """Return whether nodes can run an image with this name."""

    @abstractmethod
    def keep(self, builds: Sequence[Build]) -> None:
        """Make newly built images available to every node."""

    @abstractmethod
    def reference(self, tag: str) -> str:
        """Return the name that services use for a tag's image."""

    @abstractmethod
    def fetch(self, tag: str) -> None:
        """Fetch an image into the engine, if it is kept."""

    def _credentials_for(self, image: str) -> Credentials | None:
        """Return the credentials of an image's registry, if known."""
        return None

    def pinned(self, named: str) -> str:
        """Return a third-party image with its digest; raises Refused without one."""
        try:
            digest = self._engine.images.digest(named, self._credentials_for(named))
        except ApiError as error:
            raise Refused(f"the image {named} can't be found "
                          f"({registry_access.cause_of(error.explanation)})",
                          "correct images in the inventory") from error
        return named if "@" in named else f"{named}@{digest}"

    def missing(self, builds: Iterable[Build]) -> list[Build]:
        """Return the builds whose images are missing."""
        return [build for build in builds if not self.has(build.tag)]


class LocalStore(Store):
    """The engine of the single machine."""

    prefix = PREFIX

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def check(self) -> None:
        """Do nothing: the images are local."""

    def pinned(self, named: str) -> str:
        # An image built or loaded here may be in no registry.
        return named if self.has(named) else super().pinned(named)

    def has(self, reference: str) -> bool:
        return self._engine.images.id(reference) != ""

    def keep(self, builds: Sequence[Build]) -> None:
        """Do nothing: a built image is already here."""

    def fetch(self, tag: str) -> None:
        """Do nothing: a kept image is already in the engine."""

    def reference(self, tag: str) -> str:
        return tag


class RegistryStore(Store):
    """The Swarm's own registry, or another one."""

    def __init__(self, engine: Engine, cli: DockerCli, kept_in: RegistryAccess) -> None:
        self._engine, self._cli, self.registry = engine, cli, kept_in
        self.prefix = kept_in.prefix

    def check(self) -> None:
        if self.registry.user:
            registry_access.check(self._engine, self.registry)

    def has(self, reference: str) -> bool:
        return self._digest(reference) != ""

    def keep(self, builds: Sequence[Build]) -> None:
        """Push images in parallel; raises Refused with the registry's error."""
        with ThreadPoolExecutor(max_workers=len(builds) or 1) as pool:
            results = list(pool.map(lambda build: self._cli.push(build.tag), builds))
        for build, done in zip(builds, results):
            if not done.ok:
                raise Refused(f"{build.tag} could not be pushed ({done.last_line})",
                              "nothing was changed; fix the registry, then ./fab deploy")

    def reference(self, tag: str) -> str:
        return f"{tag}@{self._digest(tag)}"

    def fetch(self, tag: str) -> None:
        if not self._engine.images.id(tag) and self.has(tag):
            self._engine.images.pull(tag, self._credentials)

    @property
    def _credentials(self) -> Credentials | None:
        if not self.registry.user:
            return None
        return {"username": self.registry.user, "password": self.registry.password}

    def _credentials_for(self, image: str) -> Credentials | None:
        return self._credentials if image.startswith(f"{self.registry.host}/") else None

    def _digest(self, reference: str) -> str:
        """Return an image's digest in the registry, or "" if it isn't there."""
        try:
            return self._engine.images.digest(reference, self._credentials)
        except ApiError as error:
            said = error.explanation
            if "manifest unknown" in said or "not found" in said or "name unknown" in said:
                return ""
            raise Refused(f"the registry {self.registry.host}: {registry_access.cause_of(said)}",
                          "./fab bootstrap, then the same command again") from error


def of(machines: Fleet, engine: Engine, machine: Machine) -> Store:
    """Return the store of this fleet's images."""
    if machines.inventory is None or not machines.inventory.uses_registry:
        return LocalStore(engine)
    kept_in = _named(machines.inventory) or _own(machines.inventory, machine)
    return RegistryStore(engine, DockerCli(machine, uses_registry=True), kept_in)


def _named(chosen: Inventory) -> RegistryAccess | None:
    """Return the inventory's registry, with its password."""
    named = chosen.registry
    if named is None:
        return None
    try:
        ca = named.ca.read_text(encoding="utf-8") if named.ca else ""
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"registry.ca, {named.ca}, can't be read", str(error)) from error
    password = settings.registry_password(named) or ""
    return RegistryAccess(named.address, named.user or "", password, ca)


def _own(chosen: Inventory, manager: Machine) -> RegistryAccess:
    """Return the Swarm's own registry, with the password from a manager."""
    address = own_address(chosen)
    known = registry_access.read_credentials(manager, address)
    if known is None:
        raise Refused(f"{manager.name} has no password for the registry",
                      "./fab bootstrap provides it")
    return RegistryAccess(address, *known)


def own_address(chosen: Inventory) -> str:
    """Return the address of the Swarm's own registry."""
    holder = next(node for node in chosen.nodes if node.labels.get("registry") == "true")
    return f"{holder.private}:{PORT}"


def ensure(machines: Fleet, engine: Engine, builder: Member,
           current: Step) -> list[str]:
    """Ensure that every node trusts and can use the registry; return the changes."""
    assert machines.inventory is not None
    nodes = [member.machine for member in machines.members]
    managers = [member.machine for member in machines.managers]
    if named := _named(machines.inventory):
        changes = own_registry.on_each(
            nodes, lambda machine: registry_access.trust(machine, named), "trust")
        changes += own_registry.on_each(
            managers, lambda machine: registry_access.give_credentials(machine, named),
            "credentials")
        if named.user:
            registry_access.check(engine, named)
        return changes
    image = _own_image(builder, current)
    _, changes = own_registry.ensure(
        engine, DockerCli(builder.machine), builder.membership().node_id, nodes, managers,
        own_address(machines.inventory), image)
    return changes


def _own_image(builder: Member, current: Step) -> str:
    """Build the registry's own image unless it exists; return its name."""
    engine = builder.engine
    with snapshot(settings.ROOT, LocalMachine()) as taken:
        build = builds.registry_build(taken, engine.images.id(base.BASE))
        if not engine.images.id(build.tag):
            current.doing("building it")
            with builder.machine.holding(taken.files / "stack/images" / build.name) as files:
                builds.build_all(DockerCli(builder.machine), files, [build])
    return build.tag
