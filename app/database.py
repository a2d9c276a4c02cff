"""Connect to the database, so that no request hangs and none is counted twice."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from app.config import Config
from app.models import db

Result = TypeVar("Result")

DEADLOCK_ATTEMPTS = 5
# PostgreSQL: serialization_failure, deadlock_detected. MySQL: ER_LOCK_DEADLOCK.
DEADLOCK_CODES = {"40001", "40P01", 1213}

# One thread a process needs one connection; a threaded development server a few.
POOL = {"pool_size": 2, "max_overflow": 8, "pool_timeout": 2}
POSTGRESQL_OPTIONS = {
    "connect_timeout": 2,
    "application_name": "tally",
    "options": "-c statement_timeout=5s -c idle_in_transaction_session_timeout=10s",
    # A peer that lost power answers nothing: give up before the visitor does.
    "tcp_user_timeout": 3000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
MYSQL_OPTIONS = {"connect_timeout": 2, "read_timeout": 5, "write_timeout": 5}


def register(app: Flask, config: Config) -> None:
    """Give the application its engine, which connects when it is first used."""
    app.config["SQLALCHEMY_DATABASE_URI"] = config.database
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(config.database)
    db.init_app(app)


def engine_options(url: URL) -> dict[str, Any]:
    """Return the engine's options: every wait has an end, errors carry no parameters."""
    match url.get_backend_name():
        case "postgresql":
            return {**POOL, "hide_parameters": True, "connect_args": POSTGRESQL_OPTIONS}
        case "mysql":
            # InnoDB's default, REPEATABLE READ, would sum the slots of an old snapshot.
            isolation = {"isolation_level": "READ COMMITTED", "hide_parameters": True}
            return {**POOL, **isolation, "connect_args": MYSQL_OPTIONS}
        case _:
            return {"hide_parameters": True, "connect_args": {"timeout": 5}}


def transact(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Run work in one transaction, commit it durably and return what it returned.

    Work that failed before its commit was sent has left nothing behind, and is run
    again if a new connection or another order of locks may help. A commit that
    fails is not retried: nobody knows whether it happened.
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
    """Tell whether the same work may succeed if it is run again.

    One new attempt is enough for a connection that the server closed while it sat
    in the pool: SQLAlchemy drops all of that age with it.
    """
    if error.connection_invalidated:
        return attempt == 1
    return is_deadlock(error) and attempt < DEADLOCK_ATTEMPTS


def is_deadlock(error: DBAPIError) -> bool:
    """Tell whether the server sacrificed this transaction for another one's sake."""
    return not driver_codes(error).isdisjoint(DEADLOCK_CODES)


def driver_codes(error: DBAPIError) -> set[object]:
    """Return what names the error's kind: psycopg's SQLSTATE, PyMySQL's first argument."""
    return {getattr(error.orig, "sqlstate", None), *getattr(error.orig, "args", ())[:1]}


def product(engine: Engine) -> str:
    """Return the database's product and major version, such as "PostgreSQL 17".

    Read from what the driver learnt when it first connected: no query is made.
    """
    dialect = engine.dialect
    version: tuple[int, ...] = getattr(dialect, "server_version_info", (0, 0))
    match dialect.name:
        case "postgresql":
            return f"PostgreSQL {version[0]}"
        case "sqlite":
            return f"SQLite {version[0]}"
        case _:
            # Here the first two numbers name a release series.
            name = "MariaDB" if getattr(dialect, "is_mariadb", False) else "MySQL"
            return f"{name} {version[0]}.{version[1]}"
