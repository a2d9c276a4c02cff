"""Configs and secrets, which an engine handles alike; only a secret's data can't be read."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stack.engine.objects import Object, Objects


@dataclass(frozen=True)
class Config:
    """A config, or a secret; `version` grows with each change of the Swarm."""

    id: str
    name: str
    version: int
    labels: Mapping[str, str] = field(hash=False)
    data: bytes = field(repr=False)

    @classmethod
    def read(cls, found: Object) -> "Config":
        """Read a config as the Engine API gives it."""
        spec = found["Spec"]
        return cls(found["ID"], spec["Name"], found["Version"]["Index"], spec.get("Labels") or {},
                   base64.b64decode(spec.get("Data") or ""))


class Configs:
    """All configs, or all secrets, of the Swarm."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def list(self, label: str = "") -> Sequence[Config]:
        """Return those with a label, given as NAME or NAME=VALUE, or all."""
        return [Config.read(found)
                for found in self._objects.list({"label": label} if label else None)]

    def named(self, name: str) -> Config | None:
        """Return the one with this name, or None."""
        # The API matches the beginning of a name.
        found = map(Config.read, self._objects.list({"name": name}))
        return next((config for config in found if config.name == name), None)

    def inspect(self, config_id: str) -> Config:
        """Return one by its id; raises Missing."""
        return Config.read(self._objects.inspect(config_id))

    def create(self, name: str, data: bytes, labels: Mapping[str, str]) -> str:
        """Create one and return its id; raises Conflict if the name is taken."""
        return self._objects.create({"Name": name, "Labels": dict(labels),
                                     "Data": base64.b64encode(data).decode()})

    def add_labels(self, config_id: str, labels: Mapping[str, str]) -> None:
        """Add or change labels, all that Swarm lets change; raises Missing."""
        found = self._objects.inspect(config_id)
        spec = found["Spec"]
        self._objects.update(found, {**spec, "Labels": {**spec["Labels"], **labels}})

    def remove(self, key: str) -> None:
        """Remove one by its id or name; raises Missing."""
        self._objects.remove(key)
