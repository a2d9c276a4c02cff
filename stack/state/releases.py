"""What the Swarm remembers of each release: enough to identify and restore it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from stack.engine.engine import Engine
from stack.state.journal import Journal
from stack.state.revisions import Revision
from stack.state.schema import parse_revisions
from stack.swarm.services import definitions, spec_hash
from stack.swarm.stackfile import Stack

LABEL = "tally.release"
KEPT = 10


@dataclass(frozen=True)
class Record:
    """One proven release.

    `content` is the whole rendered stack; `specs` maps each service to the hash
    of its definition as Docker held it then, which reveals later manual changes, and
    `definitions` has these in full. `revisions` are the schema revisions that its code
    knows, None if they weren't recorded. `probe` is the site probe's result, if the site
    was already running.
    """

    version: str
    commit: str
    who: str
    at: float
    seconds: float
    content: dict[str, Any]
    specs: Mapping[str, str]
    probe: Mapping[str, float] | None = None
    definitions: Mapping[str, Any] = field(default_factory=dict)
    revisions: Sequence[Mapping[str, Any]] | None = None

    @property
    def schema(self) -> tuple[Revision, ...] | None:
        return None if self.revisions is None else parse_revisions(self.revisions)

    @property
    def stack(self) -> Stack:
        return Stack(self.content)

    @property
    def essence(self) -> dict[str, Any]:
        """The stack without its number of replicas: scaling doesn't change a release."""
        return self.stack.with_replicas(1).content


def history(engine: Engine) -> list[Record]:
    """Return the recorded releases, newest first."""
    return sorted((entry.read(Record) for entry in _journal(engine).entries()),
                  key=lambda record: record.at, reverse=True)


def newest(engine: Engine) -> Record | None:
    """Return the release that was proven last, or None."""
    return next(iter(history(engine)), None)


def _journal(engine: Engine) -> Journal:
    return Journal(engine, LABEL, "release")


def to_restore(history: list[Record], running: Mapping[str, str]) -> Record | None:
    """Return the release that a rollback restores, or None.

    `running` is what spec_hashes returns now. If it isn't the last proven release, as
    after a killed update, a rollback restores that release, or completes an interrupted
    rollback from it. Otherwise it restores the newest older release that differs: after
    a rollback, the release that was rolled back stands between two records of the same
    release.
    """
    if not history:
        return None
    latest = history[0]
    last = max(index for index, record in enumerate(history) if record.essence == latest.essence)
    earlier = next(iter(history[last + 1:]), None)
    if latest.specs == running or earlier and _is_on_the_way(running, latest, earlier):
        return earlier
    return latest


def _is_on_the_way(running: Mapping[str, str], start: Record, end: Record) -> bool:
    """Return whether each service matches one of two releases, and some already match `end`."""
    pairs = [(now, start.specs.get(name), end.specs.get(name)) for name, now in running.items()]
    return all(now in (before, after) for now, before, after in pairs) \
        and any(now == after != before for now, before, after in pairs)


def named(history: list[Record], version: str) -> Record | None:
    """Return the newest record of a version, or None."""
    return next((record for record in history if record.version == version), None)


def save(engine: Engine, record: Record) -> None:
    """Save a release; keep only the last ten."""
    journal = _journal(engine)
    journal.add(record.at, record.version, asdict(record))
    journal.trim(KEPT)


def forget(engine: Engine, record: Record) -> None:
    """Remove one record."""
    _journal(engine).remove_at(record.at)


def forget_all(engine: Engine) -> None:
    """Remove every record, after the stack itself was removed."""
    _journal(engine).clear()


def make(engine: Engine, *, version: str, commit: str, who: str, began: float,
         stack: Stack, probe: Mapping[str, float] | None,
         schema: Sequence[Revision] | None) -> Record:
    """Return a record of the running release; its deploy began at `began` (Unix time)."""
    now, running = time.time(), definitions(engine)
    return Record(version, commit, who, now, round(now - began, 1), stack.content,
                  {name: spec_hash(spec) for name, spec in running.items()},
                  probe, running,
                  None if schema is None else [asdict(revision) for revision in schema])
