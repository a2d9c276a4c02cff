"""Connect to the database with timeouts and safe retries."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from app.connections import connect_arguments, prepare
from app.models import db

Result = TypeVar("Result")

DEADLOCK_ATTEMPTS = 5
# PostgreSQL: serialization_failure, deadlock_detected. MySQL: ER_LOCK_DEADLOCK.
DEADLOCK_CODES = {"40001", "40P01", 1213}
# PostgreSQL: undefined_table, undefined_column, undefined_function.
# MySQL: ER_NO_SUCH_TABLE, ER_BAD_FIELD_ERROR.
UNDEFINED_CODES = {"42P01", "42703", "42883", 1146, 1054}
# SQLite has no codes for them.
UNDEFINED_TEXTS = ("no such table", "no such column", "table visitors has no column")

# A single-threaded process needs one connection; the development server needs a few.
POOL = {"pool_size": 2, "max_overflow": 8, "pool_timeout": 2}
ENGINE_OPTIONS: dict[str, dict[str, Any]] = {
    # Each new connection would ask for a type that no table has.
    "postgresql": {**POOL, "use_native_hstore": False},
    # The default, REPEATABLE READ, would sum the slots of an old snapshot.
    "mysql": {**POOL, "isolation_level": "READ COMMITTED"},
    "sqlite": {},
}
CONNECT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "postgresql": {
        "connect_timeout": 2,
        "application_name": "tally",
        # Detect a server that lost power before the visitor gives up.
        "tcp_user_timeout": 3000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    },
    "mysql": {"connect_timeout": 2, "read_timeout": 5, "write_timeout": 5},
    "sqlite": {"timeout": 5},
}
POSTGRESQL_PARAMETERS = {
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
}


def register(app: Flask) -> None:
    """Set up the application's engine, which connects on first use."""
    url = app.config["SQLALCHEMY_DATABASE_URI"]
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(url)
    db.init_app(app)
    with app.app_context():
        prepare(db.engine, POSTGRESQL_PARAMETERS)


def engine_options(url: URL) -> dict[str, Any]:
    """Return the engine's options: all waits time out; errors hide the parameters."""
    backend = url.get_backend_name()
    arguments = connect_arguments(url, CONNECT_ARGUMENTS[backend])
    return {**ENGINE_OPTIONS[backend], "hide_parameters": True, "connect_args": arguments}


def transact(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Run work in one transaction, commit it durably and return its result.

    An error before the commit leaves no changes, so the work is retried after a lost
    connection or a deadlock. A failed commit is not retried, because it may have
    succeeded on the server.
    """
    attempt = 1
    while True:
        with engine.connect() as connection:
            try:
                result = work(connection)
            except DBAPIError as error:
                if not worth_retrying(error, attempt):
                    raise
                attempt += 1
                continue
            connection.commit()
            return result


def worth_retrying(error: DBAPIError, attempt: int) -> bool:
    """Return whether to run the work again.

    One retry is enough after the server closed an idle connection: SQLAlchemy also
    drops all other connections of the same age.
    """
    if error.connection_invalidated:
        return attempt == 1
    return is_deadlock(error) and attempt < DEADLOCK_ATTEMPTS


def is_deadlock(error: DBAPIError) -> bool:
    """Return whether the server aborted this transaction to resolve a deadlock."""
    return not driver_codes(error).isdisjoint(DEADLOCK_CODES)


def is_undefined(error: DBAPIError) -> bool:
    """Return whether a statement needs something that the database lacks."""
    codes = driver_codes(error)
    return not codes.isdisjoint(UNDEFINED_CODES) or str(error.orig).startswith(UNDEFINED_TEXTS)


def driver_codes(error: DBAPIError) -> set[object]:
    """Return the error's codes: psycopg2's SQLSTATE and PyMySQL's first argument."""
    return {getattr(error.orig, "pgcode", None), *getattr(error.orig, "args", ())[:1]}


def product(engine: Engine) -> str:
    """Return the database's product and major version, such as "PostgreSQL 17".

    SQLAlchemy reads the version on the first connection, so no query is needed.
    """
    dialect = engine.dialect
    version: tuple[int, ...] = getattr(dialect, "server_version_info", (0, 0))
    match dialect.name:
        case "postgresql":
            return f"PostgreSQL {version[0]}"
        case "sqlite":
            return f"SQLite {version[0]}"
        case _:
            # A MariaDB or MySQL release series has two numbers.
            name = "MariaDB" if getattr(dialect, "is_mariadb", False) else "MySQL"
            return f"{name} {version[0]}.{version[1]}"
