"""Fixtures for applications on empty, migrated databases."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import flask_migrate
import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache

from app import create_app
from tests.support.services import VISITOR_KEY, Database, MariaDB, Postgres, mariadb, postgres

SQLITE = pytest.param("sqlite", marks=pytest.mark.unit)
POSTGRESQL = pytest.param("postgres_database", marks=pytest.mark.service)
MARIADB = pytest.param("mariadb_database", marks=pytest.mark.service)
serial = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def compiled_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile each template once: it takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        cache = FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))
        patch.setitem(Flask.jinja_options, "bytecode_cache", cache)
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    with mariadb() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: Postgres) -> Iterator[Database]:
    with postgres_server.database(f"tally_{next(serial)}") as database:
        yield database


@pytest.fixture
def mariadb_database(mariadb_server: MariaDB) -> Iterator[Database]:
    with mariadb_server.database(f"tally_{next(serial)}") as database:
        yield database


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    return SqliteDatabase(f"sqlite:///{tmp_path / 'configured.sqlite3'}", "", "")


class SqliteDatabase(Database):
    """A configured SQLite file, without users and passwords."""

    def environ(self, user: str) -> dict[str, str]:
        return {
            "TALLY_ENV": "production",
            "TALLY_VERSION": "1.4.0+57",
            "VISITOR_KEY": VISITOR_KEY,
            "DATABASE_URL": self.url,
        }


@pytest.fixture(params=[SQLITE, POSTGRESQL, MARIADB])
def any_database(request: pytest.FixtureRequest) -> Database:
    """Each database that the application supports, in turn."""
    database: Database = request.getfixturevalue(request.param)
    return database


def migrated(database: Database, revision: str = "head") -> Database:
    """Migrate a database to a revision as its owner, as in production."""
    with owning(database):
        flask_migrate.upgrade(revision=revision)
    return database


@contextmanager
def owning(database: Database) -> Iterator[None]:
    """Run migration commands in this process as the database's owner."""
    with create_app(database.environ(database.owner)).app_context():
        yield


@pytest.fixture
def any_app(any_database: Database) -> Flask:
    """The application on each database, as the same user as in production."""
    return create_app(migrated(any_database).environ(any_database.user))


@pytest.fixture
def postgres_app(postgres_database: Database) -> Flask:
    return create_app(migrated(postgres_database).environ(postgres_database.user))


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the whole schema: each migration takes a moment."""
    path = tmp_path_factory.mktemp("migrated") / "migrated.sqlite3"
    migrated(SqliteDatabase(f"sqlite:///{path}", "", ""))
    return path


@pytest.fixture
def environ(sqlite: Database, migrated_file: Path) -> dict[str, str]:
    """The environment as in production, with a migrated SQLite file."""
    shutil.copy(migrated_file, sqlite.url.removeprefix("sqlite:///"))
    return sqlite.environ("")


@pytest.fixture
def app(environ: dict[str, str]) -> Flask:
    return create_app(environ)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
