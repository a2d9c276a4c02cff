"""Run migrations in one process at a time, without blocking visitors.

The application keeps serving during a migration. A migration that waits for a lock
blocks all later queries on the table, so it waits for one second at most, then lets
the queries run and retries.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import current_app
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from app.connections import connect_arguments, prepare
from app.database import driver_codes
from app.logs import cause
from app.models import db

# An arbitrary number that no other program may use in the same database.
ADVISORY_LOCK = 7_250_119
TRY_LOCK = {
    # A transaction's lock works through a pooler, too. The transaction waits without a limit.
    "postgresql": f"""
        SELECT pg_try_advisory_xact_lock({ADVISORY_LOCK})
        FROM set_config('idle_in_transaction_session_timeout', '0', true)
    """,
    "mysql": f"SELECT GET_LOCK('tally.{ADVISORY_LOCK}', 0)",
}
PAUSE_SECONDS = 1
# What a step did, by whether it is a stamp and an upgrade.
STEPS = {
    (False, True): "upgraded to",
    (False, False): "downgraded from",
    (True, True): "stamped without a migration:",
    (True, False): "removed the stamp",
}
# lock_not_available in PostgreSQL, ER_LOCK_WAIT_TIMEOUT in MySQL.
LOCK_TIMEOUT_CODES = {"55P03", 1205}

# The server releases the locks of a killed job within 2 s, even during a statement,
# and those of a machine that lost power after 25 s.
POSTGRESQL_PARAMETERS = {
    "lock_timeout": "1s",
    "statement_timeout": "5min",
    "client_connection_check_interval": "2s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
MYSQL_LOCK_TIMEOUT = "SET SESSION lock_wait_timeout = 1"
CONNECT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "postgresql": {"connect_timeout": 5, "application_name": "tally migrations"},
    "mysql": {"connect_timeout": 5},
}


class MigrationError(SystemExit):
    """End the command with a one-line message; the schema is at a complete revision."""


def engine(url: URL) -> Engine:
    """Return an engine without a pool: closing a connection releases its locks."""
    arguments = connect_arguments(url, CONNECT_ARGUMENTS.get(url.get_backend_name(), {}))
    made = create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    prepare(made, POSTGRESQL_PARAMETERS)
    if made.dialect.name == "mysql":
        event.listen(made, "connect", limit_lock_waits)
    return made


def limit_lock_waits(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    """Limit the lock waits of a MySQL connection."""
    cursor = connection.cursor()
    cursor.execute(MYSQL_LOCK_TIMEOUT)
    cursor.close()


def report(text: str) -> None:
    """Print one line without buffering, for the job's log."""
    print(text, flush=True)


@contextmanager
def only_one(lock_connection: Connection, patience: int) -> Iterator[None]:
    """Hold the advisory lock; wait a limited time for another migration's lock."""
    statement = TRY_LOCK.get(lock_connection.dialect.name)
    deadline = time.monotonic() + patience
    waiting = False
    while statement and not lock_connection.exec_driver_sql(statement).scalar():
        if time.monotonic() >= deadline:
            raise MigrationError(f"another migration is still running after {patience} s")
        if not waiting:
            report(f"waiting up to {patience} s for another migration to finish")
        waiting = True
        time.sleep(PAUSE_SECONDS)
    yield


def migrate(connection: Connection, patience: int) -> None:
    """Run the command's migrations, each in a transaction; retry after a lock timeout.

    Each migration may wait for `patience` seconds.
    """
    deadline = time.monotonic() + patience
    applied: list[str] = []
    while True:
        before = len(applied)
        try:
            return run(connection, applied)
        except DBAPIError as error:
            if not timed_out_on_lock(error):
                raise
            if len(applied) > before:
                deadline = time.monotonic() + patience
            if time.monotonic() >= deadline:
                raise MigrationError(
                    f"migration failed: a table was still locked after {patience} s: {cause(error)}"
                ) from error
            report("a table is locked; retrying after other queries have run")
        connection.rollback()
        time.sleep(PAUSE_SECONDS)


def timed_out_on_lock(error: DBAPIError) -> bool:
    """Return whether a statement timed out while waiting for a lock."""
    return not driver_codes(error).isdisjoint(LOCK_TIMEOUT_CODES)


def run(connection: Connection, applied: list[str]) -> None:
    """Configure Alembic for this connection and run the command's migrations.

    Appends each revision to `applied`.
    """

    # Any: Alembic's type of a step lacks the revision's docstring.
    def report_step(
        ctx: MigrationContext, step: Any, heads: Collection[Any], run_args: Mapping[str, Any]
    ) -> None:
        applied.append(step.up_revision_id)
        done = STEPS[step.is_stamp, step.is_upgrade]
        report(f"{done} {step.up_revision_id}: {step.up_revision.doc}")

    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        transaction_per_migration=True,
        on_version_apply=report_step,
        **current_app.extensions["migrate"].configure_args,
    )
    revision = context.get_context().get_current_revision()
    connection.rollback()
    if wants_head() and is_newer(revision):
        return report(f"the schema is at {revision}, newer than this code; nothing to do")
    with context.begin_transaction():
        context.run_migrations()
    if wants_head() and not applied:
        report(f"schema is up to date: {revision}")


def wants_head() -> bool:
    """Return whether the command upgrades to this code's newest revision."""
    return context.get_context().opts.get("destination_rev") in ("head", "heads")


def is_newer(revision: str | None) -> bool:
    """Return whether the database is at a later release's revision."""
    scripts: ScriptDirectory = context.script
    known = {script.revision for script in scripts.walk_revisions()}
    return revision is not None and revision not in known


def main() -> None:
    """Run the command under the lock; a database error ends it with a one-line message."""
    source = engine(db.engine.url)
    patience = current_app.config["MIGRATION_LOCK_WAIT"]
    try:
        with source.connect() as lock_connection, source.connect() as connection:
            with only_one(lock_connection, patience):
                migrate(connection, patience)
    except DBAPIError as error:
        raise MigrationError(f"migration failed: {cause(error)}") from error


if context.is_offline_mode():
    raise MigrationError("offline mode is not supported: the migrations need a database")
main()
