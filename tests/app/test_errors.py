"""Every error is a page in plain words."""

import json
import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app import create_app
from app.headers import SECURITY
from app.models import db
from tests.app.conftest import migrated
from tests.support.services import Database


@pytest.mark.unit
def test_an_unknown_address_is_a_404_page(client: FlaskClient) -> None:
    response = client.get("/nowhere")
    assert (response.status_code, response.mimetype) == (404, "text/html")
    assert "<h1>There is nothing at this address.</h1>" in response.text
    assert "<p>404 Not Found</p>" in response.text


@pytest.mark.unit
def test_another_method_is_a_405_page(client: FlaskClient) -> None:
    response = client.post("/")
    assert (response.status_code, response.mimetype) == (405, "text/html")
    assert "<h1>This address can only be read.</h1>" in response.text


@pytest.mark.unit
def test_a_bug_is_a_500_page_without_details(app: Flask) -> None:
    app.view_functions["views.version"] = lambda: str(1 // 0)
    response = app.test_client().get("/version")
    assert (response.status_code, response.mimetype) == (500, "text/html")
    assert "<h1>Something went wrong on our side.</h1>" in response.text
    assert "division" not in response.text


@pytest.mark.unit
def test_a_redirect_stays_a_redirect(client: FlaskClient) -> None:
    response = client.get("/static//tally.css")
    assert (response.status_code, response.location) == (308, "http://localhost/static/tally.css")


def logged(client: FlaskClient, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Visit a page that has to fail with 503; return the database error that is logged."""
    capsys.readouterr()
    assert client.get("/").status_code == 503
    error, *_ = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert error["message"] == "database error"
    return {str(name): str(value) for name, value in error.items()}


def test_a_page_without_a_schema_logs_what_to_do(
    any_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    error = logged(create_app(any_database.environ(any_database.user)).test_client(), capsys)
    assert error["schema"] == "the database has no schema: run flask db upgrade"
    assert "visitors" in error["cause"]
    assert "\\x" not in error["cause"], "PostgreSQL repeats the digest in its details"


def test_a_page_on_the_schema_before_logs_what_to_do(
    any_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = migrated(any_database, "0001").environ(any_database.owner)
    error = logged(create_app(environ).test_client(), capsys)
    assert error["schema"] == "the schema is at 0001, this code needs 0003: run flask db upgrade"


@pytest.mark.unit
def test_another_database_error_says_nothing_of_the_schema(
    app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("CREATE TRIGGER refuse BEFORE INSERT ON visitors "
                                "BEGIN SELECT RAISE(ABORT, 'full'); END"))
    error = logged(app.test_client(), capsys)
    assert error["cause"] == "IntegrityError: full" and "schema" not in error


@pytest.mark.parametrize("host", ["a..b", ".", "", "a:b:c", "[::1", "a b", "\xff", "a" * 300])
@pytest.mark.parametrize("path", ["/", "/nowhere", "/static/tally.css"])
@pytest.mark.unit
def test_an_error_page_needs_nothing_that_a_request_can_break(
    client: FlaskClient, capsys: pytest.CaptureFixture[str], host: str, path: str
) -> None:
    capsys.readouterr()
    response = client.get(path, environ_overrides={"HTTP_HOST": host})
    (line,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert response.status_code in (200, 400, 404)
    assert {name: response.headers.get(name) for name in SECURITY} == SECURITY
    assert (line["path"], line["status"]) == (path, response.status_code)
    answered = rf'^tally_requests_total{{.*status="{response.status_code}"}} 1\.0$'
    assert re.search(answered, client.get("/metrics").text, re.MULTILINE)


@pytest.mark.unit
def test_a_malformed_host_is_a_400_page(client: FlaskClient) -> None:
    response = client.get("/", environ_overrides={"HTTP_HOST": "a..b"})
    assert (response.status_code, response.mimetype) == (400, "text/html")
    assert "<h1>This request cannot be understood.</h1>" in response.text
    assert 'href="/static/tally.css?v=1.4.0%2B57"' in response.text
