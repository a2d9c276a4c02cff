"""Remember the applied migrations, including those of releases never proven."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stack.engine.engine import Engine
from stack.state.journal import Journal
from stack.state.revisions import Revision, newer_than

# Label of the notes on applied migrations, including those of releases never proven.
SCHEMA = "tally.schema"
# The label's values: a finished migration, and one that was started.
APPLIED, BEGUN = "applied", "begun"


def applied(engine: Engine) -> tuple[Revision, ...] | None:
    """Return the applied revisions, None if they are unknown."""
    return _newest_note(engine, APPLIED)


def possible(engine: Engine) -> tuple[Revision, ...] | None:
    """Return the revisions that may be applied, including those of a started migration.

    A migration that failed half-way or was interrupted may have applied some of them.
    """
    done, begun = applied(engine), _newest_note(engine, BEGUN)
    if done is None or begun is None:
        return done if begun is None else begun
    return (*done, *newer_than(begun, {revision.id for revision in done}))


def note_begun(engine: Engine, revisions: Sequence[Revision]) -> None:
    """Record the revisions that a migration is about to apply."""
    _note(engine, BEGUN, revisions)


def note_applied(engine: Engine, revisions: Sequence[Revision]) -> None:
    """Record the revisions that a migration has applied; this replaces its start note.

    Revisions that an older release doesn't know stay: its migration doesn't undo them.
    """
    known = {revision.id for revision in revisions}
    _note(engine, APPLIED, (*revisions, *newer_than(applied(engine) or (), known)))


def _newest_note(engine: Engine, kind: str) -> tuple[Revision, ...] | None:
    found = [entry for entry in _journal(engine).entries() if entry.value == kind]
    return parse_revisions(found[0].content) if found else None


def _note(engine: Engine, kind: str, revisions: Sequence[Revision]) -> None:
    """Save a note; it replaces notes of its kind, and `applied` replaces all."""
    journal = _journal(engine)
    earlier = [entry for entry in journal.entries() if kind == APPLIED or entry.value == kind]
    journal.add(time.time(), kind, [asdict(revision) for revision in revisions])
    journal.remove(earlier)


def forget_applied(engine: Engine) -> None:
    """Forget the schema of a removed database."""
    _journal(engine).clear()


def _journal(engine: Engine) -> Journal:
    return Journal(engine, SCHEMA, "schema")


def parse_revisions(content: Sequence[Mapping[str, Any]]) -> tuple[Revision, ...]:
    return tuple(Revision(**revision) for revision in content)
