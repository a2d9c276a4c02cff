"""Know which schema this code needs, and bring a database to it."""

from dataclasses import dataclass
from typing import cast

import flask_migrate
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Connection

from app.config import ROOT
from app.models import db

MIGRATIONS = ROOT / "migrations"

migrate = flask_migrate.Migrate(db=db, directory=str(MIGRATIONS))


@dataclass(frozen=True)
class Schema:
    """The revisions this code was built with."""

    head: str
    known: frozenset[str]

    def fault(self, revision: str | None) -> str | None:
        """Say why a database at this revision can't serve this code, or None if it can.

        A revision we don't know is a newer release's: migrations expand before they
        contract, so that the code before them still runs. A known one that isn't
        our head is older, and lacks what this code needs.
        """
        if revision is None:
            return "the database has no schema: run flask db upgrade"
        if revision in self.known and revision != self.head:
            return f"the schema is at {revision}, this code needs {self.head}: run flask db upgrade"
        return None


def register(app: Flask) -> None:
    """Add the "flask db" commands and read which revisions there are."""
    migrate.init_app(app, db)
    app.extensions["schema"] = read_schema()


def read_schema() -> Schema:
    """Read the revisions from the migrations' files."""
    scripts = ScriptDirectory(str(MIGRATIONS))
    head = scripts.get_current_head()
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return Schema(cast(str, head), known)


def current_schema(app: Flask) -> Schema:
    """Return the schema that this application needs."""
    return cast(Schema, app.extensions["schema"])


def current_revision(connection: Connection) -> str | None:
    """Ask the database for its revision; None if it was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(app: Flask) -> None:
    """Bring development's own database to the head, so that "flask run" is enough.

    Leaves no connection open, as the process may fork after this.
    """
    with app.app_context():
        with db.engine.connect() as connection:
            revision = current_revision(connection)
        if revision != current_schema(app).head:
            flask_migrate.upgrade()
        db.engine.dispose()
