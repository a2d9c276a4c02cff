"""Through PgBouncer in transaction mode: the same pages, the same time limits, one migration."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import requests
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from app import create_app
from app.database import transact
from app.models import db
from tests.app.conftest import migrated
from tests.app.test_migrations import UPGRADED, flask_db
from tests.support.services import Database, Postgres, Server, pgbouncer, uwsgi

pytestmark = pytest.mark.service
VISITOR = {"X-Forwarded-For": "192.0.2.1"}
# It refuses the parameters that a client wants to start with, or drops them.
REFUSING, DROPPING = (), ("ignore_startup_parameters = options",)


@contextlib.contextmanager
def pooled(
    postgres: Postgres, database: Database, *settings: str
) -> Iterator[tuple[Server, Database]]:
    """Run a PgBouncer; yield it and the database as seen through it."""
    with pgbouncer(postgres, *settings) as server:
        url = database.url.replace(f":{postgres.server.port}/", f":{server.port}/")
        yield server, replace(database, url=url)


@contextlib.contextmanager
def engine_of(database: Database, options: str = "") -> Iterator[Engine]:
    """Yield the application's engine, as its own user."""
    environ = database.environ(database.user)
    app = create_app(environ | {"DATABASE_URL": environ["DATABASE_URL"] + options})
    with app.app_context():
        yield db.engine
        db.engine.dispose()


def shown(engine: Engine, name: str) -> object:
    """Return a server parameter, as a transaction finds it."""
    return transact(engine, lambda found: found.scalar(text(f"SHOW {name}")))


@pytest.mark.parametrize("settings", [REFUSING, DROPPING])
def test_every_page_is_served_and_counted_once(
    settings: tuple[str, ...], postgres_server: Postgres, postgres_database: Database
) -> None:
    migrated(postgres_database)
    with pooled(postgres_server, postgres_database, *settings) as (_, database):
        with uwsgi(database.environ(database.user)) as site, ThreadPoolExecutor(8) as browsers:
            def visit(number: int) -> int:
                return requests.get(site, headers=VISITOR, timeout=60).status_code

            assert set(browsers.map(visit, range(200))) == {200}
            page = requests.get(site, headers=VISITOR, timeout=60).text
    assert "this page 201 times" in page


@pytest.mark.parametrize("settings", [REFUSING, DROPPING])
@pytest.mark.parametrize(("options", "limit"), [("", "5s"), ("?options=-c+statement_timeout%3D4s",
                                                             "4s")])
def test_each_transaction_has_the_time_limits(
    settings: tuple[str, ...], options: str, limit: str, postgres_server: Postgres,
    postgres_database: Database,
) -> None:
    with pooled(postgres_server, postgres_database, *settings) as (_, database):
        with engine_of(database, options) as engine:
            assert [shown(engine, "statement_timeout") for _ in range(3)] == [limit] * 3
            assert shown(engine, "idle_in_transaction_session_timeout") == "10s"


def test_a_time_limit_stays_in_its_transaction(
    postgres_server: Postgres, postgres_database: Database
) -> None:
    with pooled(postgres_server, postgres_database, "default_pool_size = 1") as (_, database):
        with engine_of(database) as limited:
            assert shown(limited, "statement_timeout") == "5s"
        with engine_of(database, "?options=-c+statement_timeout%3D4s") as other:
            raw = other.raw_connection()
            cursor = raw.cursor()
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("0",)
            raw.close()


def test_a_restart_of_the_pooler_costs_no_visitor_a_page(
    postgres_server: Postgres, postgres_database: Database
) -> None:
    migrated(postgres_database)
    with pooled(postgres_server, postgres_database) as (server, database):
        client = create_app(database.environ(database.user)).test_client()
        assert client.get("/", headers=VISITOR).status_code == 200
        server.stop()
        server.start()
        assert "this page 2 times" in client.get("/", headers=VISITOR).text


@pytest.mark.parametrize("settings", [REFUSING, DROPPING])
def test_of_two_migrations_at_once_one_waits_for_the_other(
    settings: tuple[str, ...], postgres_server: Postgres, postgres_database: Database
) -> None:
    settings = (*settings, "default_pool_size = 4")
    with pooled(postgres_server, postgres_database, *settings) as (_, database):
        environ = database.environ(database.owner)
        with ThreadPoolExecutor(2) as jobs:
            both = list(jobs.map(lambda _: flask_db(environ, "upgrade"), range(2)))
    assert [(job.returncode, job.stderr) for job in both] == [(0, "")] * 2
    told = "".join(job.stdout for job in both)
    assert UPGRADED in told and told.count("upgraded to") == 3
    assert "schema is up to date: 0003\n" in told


def test_a_direct_connection_starts_with_its_time_limits(
    postgres_database: Database,
) -> None:
    with engine_of(postgres_database, "?options=-c+statement_timeout%3D4s") as engine:
        with engine.connect() as connection:
            assert connection.info["pooler"] is False
        assert shown(engine, "statement_timeout") == "4s"
        assert shown(engine, "idle_in_transaction_session_timeout") == "10s"


def test_a_refusal_that_is_not_about_options_stays_an_error(
    postgres_server: Postgres, postgres_database: Database
) -> None:
    with pooled(postgres_server, postgres_database) as (_, database):
        with engine_of(replace(database, user="nobody")) as engine:
            with pytest.raises(OperationalError, match="nobody|auth"):
                engine.connect()


@pytest.mark.parametrize("settings", [REFUSING, DROPPING])
def test_a_visit_that_waits_too_long_for_its_row_is_503_through_a_pooler_too(
    settings: tuple[str, ...], postgres_server: Postgres, postgres_database: Database
) -> None:
    migrated(postgres_database)
    name = postgres_database.url.rpartition("/")[2]
    with pooled(postgres_server, postgres_database, *settings) as (_, database):
        client = create_app(database.environ(database.user)).test_client()
        client.get("/", headers=VISITOR)
        with postgres_server.connect(name) as holder, holder.transaction():
            holder.execute("UPDATE visitors SET visits = visits")
            before = time.monotonic()
            assert client.get("/", headers=VISITOR).status_code == 503
            assert time.monotonic() - before < 7
        assert "this page 2 times" in client.get("/", headers=VISITOR).text
