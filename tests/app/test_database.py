"""What a visitor sees, and what is counted, when the database fails."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from app import create_app
from app.database import product, transact
from app.models import db
from tests.app.conftest import MARIADB, POSTGRESQL, migrated
from tests.support.ports import free_port
from tests.support.services import PASSWORD, VISITOR_KEY, Database, Postgres

VISITOR = {"X-Forwarded-For": "192.0.2.1"}
UNAVAILABLE = "The counter cannot reach its database right now"


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def without_database(scheme: str, port: int, options: str = "") -> FlaskClient:
    environ = {
        "TALLY_ENV": "production",
        "TALLY_VERSION": "1.4.0+57",
        "VISITOR_KEY": VISITOR_KEY,
        "DATABASE_URL": f"{scheme}://tally@127.0.0.1:{port}/tally{options}",
        "DATABASE_PASSWORD": PASSWORD,
    }
    return create_app(environ).test_client()


def assert_unavailable(response: TestResponse) -> None:
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert UNAVAILABLE in response.text
    assert "You have visited" not in response.text


@pytest.mark.unit
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_page_without_its_database_is_503_at_once(
    scheme: str, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client = without_database(scheme, free_port())
    with at_most(1):
        response = client.open("/", method=method, headers=VISITOR)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["message"] for line in lines] == ["database error", "request"]
    assert "refused" in lines[0]["cause"]
    assert PASSWORD not in json.dumps(lines)


@pytest.mark.unit
@pytest.mark.parametrize(("scheme", "options"), [
    # PostgreSQL's own limit can't be lower; test_database_options.py tests the default of both.
    ("postgresql", ""), ("mysql", "?read_timeout=1"),
])
def test_a_silent_database_times_out_soon(scheme: str, options: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = without_database(scheme, silent.getsockname()[1], options)
        with at_most(4):
            assert_unavailable(client.get("/", headers=VISITOR))


@pytest.mark.service
def test_a_database_restart_fails_no_page(
    postgres_server: Postgres, postgres_app: Flask
) -> None:
    client = postgres_app.test_client()
    assert "this page 1 time." in client.get("/", headers=VISITOR).text
    postgres_server.restart()
    assert "this page 2 times" in client.get("/", headers=VISITOR).text
    postgres_server.restart()
    assert client.get("/readyz").status_code == 200


@pytest.mark.service
def test_pages_are_503_while_the_database_is_stopped_and_then_recover(
    postgres_server: Postgres, postgres_app: Flask
) -> None:
    client = postgres_app.test_client()
    client.get("/", headers=VISITOR)
    postgres_server.server.stop()
    try:
        with at_most(1):
            assert_unavailable(client.get("/", headers=VISITOR))
    finally:
        postgres_server.server.start()
    assert "this page 2 times" in client.get("/", headers=VISITOR).text


@pytest.mark.service
def test_a_visit_that_waits_too_long_for_its_row_is_503_and_not_counted(
    postgres_database: Database,
) -> None:
    app = create_app(migrated(postgres_database).environ(postgres_database.user))
    client = app.test_client()
    client.get("/", headers=VISITOR)
    url = postgres_database.url.format(user=postgres_database.user)
    with psycopg.connect(url, password=PASSWORD) as other:
        other.execute("UPDATE visitors SET visits = visits")
        with at_most(7):
            assert_unavailable(client.get("/", headers=VISITOR))
    assert "this page 2 times" in client.get("/", headers=VISITOR).text


@pytest.mark.service
def test_a_visit_that_gets_no_connection_is_503_soon(postgres_app: Flask) -> None:
    with postgres_app.app_context(), contextlib.ExitStack() as taken:
        for _ in range(10):
            taken.enter_context(db.engine.connect())
        with at_most(4):
            assert_unavailable(postgres_app.test_client().get("/", headers=VISITOR))


@pytest.fixture
def engine(postgres_app: Flask) -> Iterator[Engine]:
    with postgres_app.app_context():
        yield db.engine


class Work:
    """Add one visitor; lose the connection before or after it, in that many attempts."""

    def __init__(self, server: Postgres, before: int = 0, after: int = 0) -> None:
        self.server, self.before, self.after, self.attempts = server, before, after, 0

    def __call__(self, connection: Connection) -> None:
        self.attempts += 1
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        if self.attempts <= self.before:
            self.server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        connection.execute(text("INSERT INTO visitors VALUES ('0123456789abcdef', 1)"))
        if self.attempts <= self.after:
            self.server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")


def visitors_in(engine: Engine) -> object:
    return transact(engine, lambda found: found.scalar(text("SELECT count(*) FROM visitors")))


@pytest.mark.service
def test_work_that_loses_its_connection_is_retried(
    postgres_server: Postgres, engine: Engine
) -> None:
    work = Work(postgres_server, before=1)
    transact(engine, work)
    assert (work.attempts, visitors_in(engine)) == (2, 1)


@pytest.mark.service
def test_work_that_loses_every_connection_is_given_up(
    postgres_server: Postgres, engine: Engine
) -> None:
    work = Work(postgres_server, before=9)
    with pytest.raises(OperationalError):
        transact(engine, work)
    assert (work.attempts, visitors_in(engine)) == (2, 0)


@pytest.mark.service
def test_a_commit_that_failed_is_never_repeated(
    postgres_server: Postgres, engine: Engine
) -> None:
    work = Work(postgres_server, after=1)
    with pytest.raises(OperationalError):
        transact(engine, work)
    assert work.attempts == 1


@pytest.mark.parametrize("backend", [POSTGRESQL, MARIADB])
def test_both_transactions_of_a_deadlock_succeed(
        backend: str, request: pytest.FixtureRequest) -> None:
    database: Database = request.getfixturevalue(backend)
    app = create_app(migrated(database).environ(database.user))
    rows = ["a" * 16, "b" * 16]
    both_hold_one, one_is_done = threading.Barrier(2), threading.Event()
    attempts: list[str] = []

    def update(connection: Connection, row: str) -> None:
        statement = text("UPDATE visitors SET visits = visits + 1 WHERE visitor = :row")
        connection.execute(statement, {"row": row.encode()})

    def run(first: str, second: str) -> None:
        def work(connection: Connection) -> None:
            attempts.append(first)
            if len(attempts) > 2:
                # Or it may take the row again before the other one does.
                one_is_done.wait(10)
            update(connection, first)
            if len(attempts) <= 2:
                both_hold_one.wait(10)
            update(connection, second)

        with app.app_context():
            transact(db.engine, work)
        one_is_done.set()

    with app.app_context():
        statement = text("INSERT INTO visitors (visitor, visits) VALUES (:row, 0)")
        parameters = [{"row": row.encode()} for row in rows]
        transact(db.engine, lambda connection: connection.execute(statement, parameters).close())
        threads = [threading.Thread(target=run, args=order, daemon=True)
                   for order in (rows, reversed(rows))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        query = text("SELECT visits FROM visitors")
        visits = transact(db.engine, lambda connection: connection.scalars(query).all())
    assert (list(visits), len(attempts)) == ([2, 2], 3)


def test_the_product_is_shown_with_its_major_version(any_app: Flask) -> None:
    with any_app.app_context(), db.engine.connect() as connection:
        told = product(db.engine)
        version = {
            "postgresql": "SHOW server_version", "mysql": "SELECT VERSION()",
            "sqlite": "SELECT sqlite_version()",
        }[db.engine.dialect.name]
        full = str(connection.exec_driver_sql(version).scalar_one())
    name, number = told.split()
    assert name in ("PostgreSQL", "MariaDB", "SQLite")
    assert full.startswith(f"{number}.")
    page = any_app.test_client().get("/", headers=VISITOR).text
    assert f" on {told}<" in page
