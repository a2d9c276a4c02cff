"""Liveness never uses the database; readiness does, and checks the schema."""

import flask_migrate
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app import create_app
from app.models import db
from app.schema import Schema
from tests.app.conftest import migrated, owning
from tests.support.ports import free_port
from tests.support.services import VISITOR_KEY, Database


def set_revision(app: Flask, revision: str) -> None:
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})


@pytest.fixture
def lost() -> FlaskClient:
    """A client of an application whose database is down."""
    environ = {
        "TALLY_ENV": "production", "TALLY_VERSION": "1.4.0+57", "VISITOR_KEY": VISITOR_KEY,
        "DATABASE_URL": f"postgresql://tally_app@127.0.0.1:{free_port()}/tally",
    }
    return create_app(environ).test_client()


@pytest.mark.unit
def test_it_is_alive_without_its_database(lost: FlaskClient) -> None:
    response = lost.get("/healthz")
    assert (response.status_code, response.text) == (200, "alive\n")


@pytest.mark.unit
def test_it_is_not_ready_without_its_database(lost: FlaskClient) -> None:
    response = lost.get("/readyz")
    assert (response.status_code, response.text) == (503, "the database does not answer\n")


def test_it_is_ready_on_its_own_schema(any_app: Flask) -> None:
    response = any_app.test_client().get("/readyz")
    assert (response.status_code, response.text) == (200, "ready\n")


def test_it_is_not_ready_without_a_schema(any_database: Database) -> None:
    response = create_app(any_database.environ(any_database.user)).test_client().get("/readyz")
    told = "the database has no schema: run flask db upgrade\n"
    assert (response.status_code, response.text) == (503, told)


@pytest.mark.unit
def test_it_is_not_ready_on_the_previous_schema(app: Flask) -> None:
    set_revision(app, "0001")
    response = app.test_client().get("/readyz")
    told = "the schema is at 0001, this code needs 0003: run flask db upgrade\n"
    assert (response.status_code, response.text) == (503, told)


@pytest.mark.unit
def test_it_is_ready_on_a_later_releases_schema(app: Flask) -> None:
    set_revision(app, "0099")
    assert app.test_client().get("/readyz").status_code == 200


@pytest.mark.unit
def test_any_known_revision_but_the_head_is_too_old() -> None:
    schema = Schema("c", frozenset("abc"))
    assert [bool(schema.fault(revision)) for revision in ("a", "b", "c", "d", None)] == [
        True, True, False, False, True
    ]


@pytest.mark.unit
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version", "/metrics", "/nowhere"])
def test_only_the_page_counts(client: FlaskClient, path: str) -> None:
    client.get(path)
    assert "this page 1 time. Total visitors: 1<" in client.get("/").text


def test_it_is_not_ready_if_the_schema_was_only_stamped(
    any_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with owning(any_database):
        flask_migrate.stamp(revision="head")
    assert "upgraded" not in capsys.readouterr().out
    client = create_app(any_database.environ(any_database.owner)).test_client()
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.text == (
        "the schema is at 0003, but has no table forgotten_visitors, new_visitors, visitor_totals, "
        "visitors: restore a backup, or if there is no data, run flask db stamp base and flask db "
        "upgrade\n"
    )
    with owning(any_database):
        flask_migrate.stamp(revision="base")
    migrated(any_database)
    assert client.get("/readyz").text == "ready\n"


@pytest.mark.unit
def test_it_is_not_ready_without_one_of_its_tables(app: Flask) -> None:
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("DROP TABLE new_visitors"))
    response = app.test_client().get("/readyz")
    assert response.status_code == 503
    assert response.text.startswith("the schema is at 0003, but has no table new_visitors: ")
