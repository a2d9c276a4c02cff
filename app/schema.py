"""Check a database's schema against this code, and upgrade it."""

from dataclasses import dataclass
from functools import cache

import flask_migrate
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Connection, inspect

from app.config import ROOT
from app.models import db

MIGRATIONS = ROOT / "migrations"

migrate = flask_migrate.Migrate(db=db, directory=str(MIGRATIONS))


@dataclass(frozen=True)
class Schema:
    """The schema revisions that this code contains."""

    head: str | None
    known: frozenset[str]

    def fault(self, revision: str | None) -> str | None:
        """Return why this code cannot use a database at this revision, or None.

        An unknown revision belongs to a newer release and is compatible, because
        migrations expand before they contract. A known revision other than the head
        is too old.
        """
        if revision is None:
            return "the database has no schema: run flask db upgrade"
        if revision in self.known and revision != self.head:
            return f"the schema is at {revision}, this code needs {self.head}: run flask db upgrade"
        return None


def register(app: Flask) -> None:
    """Add the "flask db" commands, and fail now if the revisions cannot be read."""
    migrate.init_app(app, db)
    required_schema()


@cache
def required_schema() -> Schema:
    """Read the revisions from the migration files, once per process."""
    scripts = ScriptDirectory(str(MIGRATIONS))
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return Schema(scripts.get_current_head(), known)


def current_revision(connection: Connection) -> str | None:
    """Return the database's revision, or None if it was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def fault(connection: Connection) -> str | None:
    """Return why this code cannot use the database, and what to do, or None."""
    revision = current_revision(connection)
    return required_schema().fault(revision) or missing_tables(connection, revision)


def missing_tables(connection: Connection, revision: str | None) -> str | None:
    """Return which tables are missing although a revision is recorded, or None.

    "flask db stamp" records a revision without a migration, as does half a backup.
    """
    found = inspect(connection)
    missing = [name for name in sorted(db.metadata.tables) if not found.has_table(name)]
    if not missing:
        return None
    return (
        f"the schema is at {revision}, but has no table {', '.join(missing)}: restore a backup,"
        " or if there is no data, run flask db stamp base and flask db upgrade"
    )


def upgrade(app: Flask) -> None:
    """Upgrade the default development database, so that "flask run" needs no other step.

    Close all connections, because the process may fork later.
    """
    with app.app_context():
        with db.engine.connect() as connection:
            revision = current_revision(connection)
        if revision != required_schema().head:
            flask_migrate.upgrade()
        db.engine.dispose()
