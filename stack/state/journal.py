"""Keep entries in the Swarm's configs, where every laptop and pipeline sees them.

A config can't be changed, and Raft makes it last: a journal grows by whole entries.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from stack.engine.engine import Engine
from stack.swarm.names import STACK

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True)
class Entry:
    """One entry: the config's name, the value of the journal's label, and the JSON it holds."""

    name: str
    value: str
    content: Any

    def read(self, kind: type[T]) -> T:
        """Return the dataclass that it holds; fields that a later version added are ignored."""
        known = {field.name for field in fields(kind)}
        return kind(**{name: value for name, value in self.content.items() if name in known})


@dataclass(frozen=True)
class Journal:
    """The entries of one kind, each named by its time; `label` marks them among all configs."""

    engine: Engine
    label: str
    kind: str

    def entries(self) -> list[Entry]:
        """Return what is kept, newest first."""
        found = [Entry(config.name, config.labels[self.label], json.loads(config.data))
                 for config in self.engine.configs.list(self.label)]
        return sorted(found, key=lambda entry: entry.name, reverse=True)

    def add(self, at: float, value: str, content: object) -> None:
        """Keep an entry under its time, in seconds since 1970."""
        self.engine.configs.create(self._name(at), json.dumps(content).encode(),
                                   {self.label: value})

    def trim(self, most: int) -> None:
        """Forget the oldest entries beyond so many."""
        self.remove(self.entries()[most:])

    def remove(self, entries: Iterable[Entry]) -> None:
        """Forget entries."""
        for entry in entries:
            self.engine.configs.remove(entry.name)

    def remove_at(self, at: float) -> None:
        """Forget the entry of this time."""
        self.engine.configs.remove(self._name(at))

    def clear(self) -> None:
        """Forget everything."""
        self.remove(self.entries())

    def _name(self, at: float) -> str:
        return f"{STACK}-{self.kind}-{round(at * 1000)}"
