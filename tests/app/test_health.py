"""Liveness never asks the database; readiness does, and asks for the schema."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app import create_app
from app.models import db
from app.schema import Schema
from tests.services import VISITOR_KEY, Database, free_port


def set_revision(app: Flask, revision: str) -> None:
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})


@pytest.fixture
def lost() -> FlaskClient:
    """A client of an application whose database nobody serves."""
    environ = {
        "TALLY_ENV": "production", "TALLY_VERSION": "1.4.0+57", "VISITOR_KEY": VISITOR_KEY,
        "DATABASE_URL": f"postgresql://tally_app@127.0.0.1:{free_port()}/tally",
    }
    return create_app(environ).test_client()


@pytest.mark.unit
def test_it_lives_without_its_database(lost: FlaskClient) -> None:
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
def test_it_is_not_ready_on_the_schema_before(app: Flask) -> None:
    set_revision(app, "0001")
    response = app.test_client().get("/readyz")
    told = "the schema is at 0001, this code needs 0002: run flask db upgrade\n"
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
    assert "this page 1 times. Total visitors: 1<" in client.get("/").text
