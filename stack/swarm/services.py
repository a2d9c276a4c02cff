"""Read the stack's services, and change where they may run."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stack.engine.engine import Engine
from stack.engine.objects import Filters, Object
from stack.errors import Refused
from stack.swarm import changes
from stack.swarm.names import NAMESPACE, OF_STACK, RESTARTED_AT, STACK
from stack.swarm.tasks import find_tasks

# Update states in which Swarm considers a service's tasks up to date.
AT_REST = {"", "completed"}


@dataclass(frozen=True)
class Service:
    """A service of the Swarm, with its definition as Docker holds it.

    `update_state` and `update_message` are Swarm's own words on the last update, "" if there was
    none. `updated` is when that update started, or else when the definition last changed.
    """

    id: str
    name: str
    update_state: str
    update_message: str
    updated: datetime
    definition: Object = field(hash=False)

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> "Service":
        """Read a service as the Engine API gives it."""
        update = found.get("UpdateStatus") or {}
        return cls(found["ID"], found["Spec"]["Name"], update.get("State", ""),
                   update.get("Message", ""),
                   datetime.fromisoformat(update.get("StartedAt") or found["UpdatedAt"]),
                   found["Spec"])

    @property
    def short_name(self) -> str:
        """Its name in the stack file."""
        return self.name.removeprefix(f"{STACK}_")

    @property
    def of_stack(self) -> bool:
        return (self.definition.get("Labels") or {}).get(NAMESPACE) == STACK

    @property
    def image(self) -> str:
        return str(self.template["ContainerSpec"]["Image"])

    @property
    def template(self) -> Mapping[str, Any]:
        """The definition of its tasks."""
        template: Mapping[str, Any] = self.definition["TaskTemplate"]
        return template

    @property
    def replicas(self) -> int | None:
        """How many tasks it should have; None if it isn't replicated."""
        replicated = self.definition["Mode"].get("Replicated")
        return int(replicated["Replicas"]) if replicated else None

    @property
    def at_rest(self) -> bool:
        """Whether Swarm considers its tasks up to date."""
        return self.update_state in AT_REST


def spec_hashes(engine: Engine) -> dict[str, str]:
    """Return the hash of each of the stack's services as Docker holds it now."""
    return hashes_of(definitions(engine))


def hashes_of(definitions: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Return the hash of each definition."""
    return {name: spec_hash(spec) for name, spec in definitions.items()}


def require_service(engine: Engine, service: str) -> None:
    """Refuse the name of a service that isn't in the stack."""
    names = sorted(each.short_name for each in services(engine))
    if not names:
        raise Refused("nothing is deployed here", "./fab deploy")
    if service not in names:
        raise Refused(f"there is no service {service!r}",
                      f"choose one of: {', '.join(names)}")


def definitions(engine: Engine) -> dict[str, dict[str, Any]]:
    """Return each of the stack's services as Docker holds it now.

    The label of a restarted update doesn't make it another service.
    """
    return {service.short_name: _without(RESTARTED_AT, service.definition)
            for service in services(engine)}


def _without(label: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "Labels": {key: value for key, value in spec["Labels"].items()
                               if key != label}}


def spec_hash(spec: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def services(engine: Engine) -> list[Service]:
    """Return the stack's services, without the migration's job."""
    return find_services(engine, OF_STACK)


def find_services(engine: Engine, filters: Filters | None = None) -> list[Service]:
    """Return the services of the Swarm that match the API's filters, or all."""
    return [Service.read(found) for found in engine.services.list(filters)]


def inspect(engine: Engine, name: str) -> Service:
    """Return one service, by its full name or id."""
    return Service.read(engine.services.inspect(name))


@contextmanager
def elsewhere(engine: Engine, name: str, node_id: str) -> Iterator[None]:
    """Temporarily forbid a service one node; its tasks there are replaced start-first.

    Allowing it again restarts nothing: every task is on a node that fits.
    """
    forbidden = f"node.id!={node_id}"
    constrain(engine, name, lambda constraints: [*constraints, forbidden])
    try:
        yield
    finally:
        allow(engine, name, node_id)


def allow(engine: Engine, name: str, node_id: str) -> bool:
    """Let a service run on a node again; return whether it was forbidden."""
    return constrain(engine, name, lambda constraints: [
        each for each in constraints if each != f"node.id!={node_id}"])


def constrain(engine: Engine, name: str,
              change: Callable[[list[str]], list[str]]) -> bool:
    """Change only a service's constraints; return whether they changed."""
    def edited(spec: Object) -> Object:
        template = spec["TaskTemplate"]
        placement = template.get("Placement", {})
        kept = {key: value for key, value in placement.items() if key != "Constraints"}
        before = placement.get("Constraints") or []
        if (after := change(before)) == before:
            return spec
        wanted = {**kept, "Constraints": after} if after else kept
        return {**spec, "TaskTemplate": {**template, "Placement": wanted}}
    return changes.change(engine.services, f"{STACK}_{name}", name, edited)


def has_task(engine: Engine, name: str, node_id: str) -> bool:
    return bool(find_tasks(engine, {
        "service": f"{STACK}_{name}", "node": node_id, "desired-state": "running"}))
