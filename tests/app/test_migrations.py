"""The migration commands, run as in the migration job."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import text

from app import create_app
from app.models import APP_ROLE, db
from app.visits import count_visit
from tests.app.conftest import MARIADB, POSTGRESQL, migrated
from tests.support.services import PASSWORD, ROOT, Database, Postgres, wait_until

UPGRADED = (
    "upgraded to 0001: count visitors, and exactly how many there are.\n"
    "upgraded to 0002: count the new visitors of each day.\n"
    "upgraded to 0003: count a visit in one statement, and know the day of a visitor's last one.\n"
)


# These tests run the command itself.
SQLITE = pytest.param("sqlite", marks=pytest.mark.service)


@pytest.fixture(params=[SQLITE, POSTGRESQL, MARIADB])
def any_database(request: pytest.FixtureRequest) -> Database:
    """Each database that the application supports, in turn."""
    database: Database = request.getfixturevalue(request.param)
    return database


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flask", "--app", "app", "db", *arguments]


def flask_db(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, env={**os.environ, **environ}, timeout=60,
        capture_output=True, text=True,
    )


@contextlib.contextmanager
def started(environ: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command that still runs during the block."""
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, env={**os.environ, **environ},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def as_owner(database: Database) -> dict[str, str]:
    return database.environ(database.owner)


@contextlib.contextmanager
def open_visit(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Hold open a transaction that has counted a visit but not committed it."""
    url = database.url.format(user=database.user)
    with psycopg.connect(url, password=PASSWORD) as connection:
        connection.execute("INSERT INTO visitors VALUES ('0123456789abcdef', 1)")
        yield connection


def test_upgrade_lists_each_revision_and_then_nothing_to_do(
    any_database: Database,
) -> None:
    first = flask_db(as_owner(any_database), "upgrade")
    second = flask_db(as_owner(any_database), "upgrade")
    assert (first.returncode, first.stdout, first.stderr) == (0, UPGRADED, "")
    assert (second.returncode, second.stdout) == (0, "schema is up to date: 0003\n")


def test_the_models_match_the_migrated_schema(any_database: Database) -> None:
    migrated(any_database)
    check = flask_db(as_owner(any_database), "check")
    assert check.returncode == 0, check.stdout + check.stderr


def test_a_downgrade_leaves_nothing_and_can_be_upgraded_again(any_database: Database) -> None:
    migrated(any_database)
    down = flask_db(as_owner(any_database), "downgrade", "base")
    assert down.stdout.splitlines() == [
        "downgraded from 0003: count a visit in one statement, and know the day of a visitor's "
        "last one.",
        "downgraded from 0002: count the new visitors of each day.",
        "downgraded from 0001: count visitors, and exactly how many there are.",
    ]
    assert flask_db(as_owner(any_database), "upgrade").stdout == UPGRADED
    assert flask_db(as_owner(any_database), "check").returncode == 0


def test_visits_of_the_previous_release_count_after_the_upgrade(
    any_database: Database,
) -> None:
    flask_db(as_owner(any_database), "upgrade", "0001")
    app = create_app(as_owner(any_database))
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("INSERT INTO visitors VALUES ('0123456789abcdef', 1)"))
    assert flask_db(as_owner(any_database), "upgrade").returncode == 0
    with app.app_context():
        figures = count_visit(db.engine, b"0123456789abcdeX")
    assert (figures.visits, figures.visitors, sum(figures.new_by_day.values())) == (1, 2, 1)


def test_a_later_releases_schema_is_left_alone(any_database: Database) -> None:
    app = create_app(as_owner(migrated(any_database)))
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    upgrade = flask_db(as_owner(any_database), "upgrade")
    assert upgrade.returncode == 0, upgrade.stderr
    assert upgrade.stdout == "the schema is at 0099, newer than this code; nothing to do\n"


@pytest.mark.parametrize("backend", [POSTGRESQL, MARIADB])
def test_a_failure_is_one_line_without_the_password(
    backend: str, request: pytest.FixtureRequest
) -> None:
    database: Database = request.getfixturevalue(backend)
    environ = as_owner(database) | {"DATABASE_PASSWORD": "wrong-" + PASSWORD}
    upgrade = flask_db(environ, "upgrade")
    assert upgrade.returncode == 1
    assert upgrade.stderr.startswith("migration failed: OperationalError: ")
    assert len(upgrade.stderr.splitlines()) == 1
    assert PASSWORD not in upgrade.stderr + upgrade.stdout


@pytest.mark.service
def test_a_second_upgrade_waits_for_the_first_and_finds_nothing_to_do(
    postgres_database: Database,
) -> None:
    environ = as_owner(postgres_database)
    flask_db(environ, "upgrade", "0001")
    with open_visit(postgres_database) as visit, started(environ, "upgrade") as first:
        assert first_line(first) == "a table is locked; retrying after other queries have run\n"
        with started(environ, "upgrade") as second:
            waiting = "waiting up to 60 s for another migration to finish\n"
            assert first_line(second) == waiting
            visit.rollback()
            assert UPGRADED.splitlines()[1] in first.communicate(timeout=30)[0]
            assert second.communicate(timeout=30)[0] == "schema is up to date: 0003\n"
            assert (first.returncode, second.returncode) == (0, 0)


@pytest.mark.service
def test_two_upgrades_at_once_on_mariadb_both_succeed(mariadb_database: Database) -> None:
    environ = as_owner(mariadb_database)
    with started(environ, "upgrade") as first, started(environ, "upgrade") as second:
        told = first.communicate(timeout=30)[0] + second.communicate(timeout=30)[0]
    assert (first.returncode, second.returncode) == (0, 0), told
    assert told.count("upgraded to") == 3
    assert "schema is up to date: 0003\n" in told


@pytest.mark.service
def test_an_upgrade_lets_visitors_pass_while_it_waits_for_a_lock(
    postgres_database: Database,
) -> None:
    environ = as_owner(postgres_database)
    flask_db(environ, "upgrade", "0001")
    visit_as_the_release_before(postgres_database)
    with open_visit(postgres_database), started(environ, "upgrade") as upgrade:
        first_line(upgrade)
        for _ in range(8):
            visit_as_the_release_before(postgres_database)
            time.sleep(0.5)
        assert upgrade.poll() is None


def visit_as_the_release_before(database: Database) -> None:
    """Count a visit, with the application's time limit.

    Always the same visitor: a new one might wait for the open visit's slot.
    """
    url = database.url.format(user=database.user)
    limit = "-c statement_timeout=5s"
    with psycopg.connect(url, password=PASSWORD, options=limit) as connection:
        connection.execute("INSERT INTO visitors VALUES (%s, 1) ON CONFLICT (visitor) DO UPDATE "
                           "SET visits = visitors.visits + 1", [b"the same visitor"])


@pytest.mark.service
def test_an_upgrade_gives_up_on_a_lock_that_is_never_released(
    postgres_database: Database,
) -> None:
    environ = as_owner(postgres_database) | {"MIGRATION_LOCK_WAIT": "2"}
    flask_db(environ, "upgrade", "0001")
    with open_visit(postgres_database):
        upgrade = flask_db(environ, "upgrade")
    assert upgrade.returncode == 1
    assert upgrade.stderr.startswith("migration failed: a table was still locked after 2 s: ")
    assert len(upgrade.stderr.splitlines()) == 1
    assert flask_db(environ, "current").stdout.startswith("0001")


EXISTS = "SELECT to_regclass('visitors') IS NOT NULL"
# Each statement that changes the schema takes its time.
SLOW_CHANGES = """
    CREATE FUNCTION take_time() RETURNS event_trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(0.7); END $$;
    CREATE EVENT TRIGGER take_time ON ddl_command_start EXECUTE FUNCTION take_time()
"""


@pytest.mark.service
def test_the_time_of_earlier_migrations_doesnt_count_as_a_wait_for_a_lock(
        postgres_server: Postgres, postgres_database: Database) -> None:
    name = postgres_database.url.rpartition("/")[2]
    environ = as_owner(postgres_database) | {"MIGRATION_LOCK_WAIT": "2"}
    with postgres_server.connect(name) as superuser:
        superuser.execute(SLOW_CHANGES)
        with started(environ, "upgrade") as upgrade:
            assert first_line(upgrade) == UPGRADED.splitlines()[0] + "\n"
            wait_until(lambda: superuser.execute(EXISTS).fetchone() == (True,),
                       "the first migration is committed")
            with superuser.transaction():
                superuser.execute("LOCK TABLE visitors IN SHARE MODE")
                assert upgrade.stdout is not None
                assert upgrade.stdout.readline().startswith("a table is locked")
            rest = upgrade.communicate(timeout=60)[0]
    assert (upgrade.returncode, rest) == (0, UPGRADED.partition("\n")[2])


@pytest.mark.service
def test_a_killed_upgrade_leaves_no_lock(
    postgres_server: Postgres, postgres_database: Database
) -> None:
    environ = as_owner(postgres_database)
    flask_db(environ, "upgrade", "0001")

    def locks() -> int:
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        with postgres_server.connect() as connection:
            row = connection.execute(query).fetchone()
        assert row is not None and isinstance(row[0], int)
        return row[0]

    with open_visit(postgres_database), started(environ, "upgrade") as upgrade:
        first_line(upgrade)
        assert locks() == 1
        upgrade.send_signal(signal.SIGKILL)
        wait_until(lambda: locks() == 0, "the lock is free", seconds=10)
    assert UPGRADED.splitlines()[1] in flask_db(environ, "upgrade").stdout


@pytest.mark.service
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO visitor_totals VALUES (1, 1)",
        "UPDATE visitor_totals SET visitors = 0",
        "UPDATE new_visitors SET visitors = 0",
        "UPDATE alembic_version SET version_num = '0099'",
        "DELETE FROM visitors",
        "TRUNCATE visitors",
        "CREATE TABLE mine ()",
        "DROP TABLE visitors",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
    ],
)
def test_the_application_has_only_the_rights_it_needs(
    postgres_database: Database, statement: str
) -> None:
    migrated(postgres_database)
    url = postgres_database.url.format(user=postgres_database.user)
    with psycopg.connect(url, password=PASSWORD) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


@pytest.mark.service
def test_a_temporary_table_cannot_intercept_the_triggers_counts(
    postgres_database: Database,
) -> None:
    migrated(postgres_database)
    url = postgres_database.url.format(user=postgres_database.user)
    with psycopg.connect(url, password=PASSWORD) as connection:
        connection.execute("CREATE TEMPORARY TABLE visitor_totals (slot int UNIQUE, visitors int)")
        connection.execute("INSERT INTO visitors VALUES ('0123456789abcdef', 1)")
        row = connection.execute("SELECT sum(visitors) FROM public.visitor_totals").fetchone()
    assert row == (1,)


@pytest.mark.service
def test_the_schema_needs_no_second_role(
    postgres_server: Postgres, postgres_database: Database
) -> None:
    postgres_server.execute(f"ALTER ROLE {APP_ROLE} RENAME TO away")
    try:
        upgrade = flask_db(as_owner(postgres_database), "upgrade")
    finally:
        postgres_server.execute(f"ALTER ROLE away RENAME TO {APP_ROLE}")
    assert (upgrade.returncode, upgrade.stdout) == (0, UPGRADED)
