"""Run migrations one process at a time, without holding up the visitors.

The application keeps serving while this runs. A migration that waits for a lock
makes every later query wait behind it, so it waits a second at most, lets them
pass, and tries again.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import current_app
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from app.config import current_config
from app.database import driver_codes
from app.logs import cause
from app.models import db

# Any number will do, as long as no other program takes it in the same database.
ADVISORY_LOCK = 7_250_119
TRY_LOCK = {
    "postgresql": f"SELECT pg_try_advisory_lock({ADVISORY_LOCK})",
    "mysql": f"SELECT GET_LOCK('tally.{ADVISORY_LOCK}', 0)",
}
PAUSE_SECONDS = 1
# lock_not_available in PostgreSQL, ER_LOCK_WAIT_TIMEOUT in MySQL.
LOCK_TIMEOUT_CODES = {"55P03", 1205}

# Both kinds of connection: a job that was killed is noticed even while the server
# works for it, one on a machine that lost power after 25 s; both leave no lock.
POSTGRESQL_OPTIONS = (
    "-c lock_timeout=1s -c statement_timeout=5min -c client_connection_check_interval=2s"
    " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)
CONNECT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "postgresql": {
        "connect_timeout": 5,
        "application_name": "tally migrations",
        "options": POSTGRESQL_OPTIONS,
    },
    "mysql": {"connect_timeout": 5, "init_command": "SET SESSION lock_wait_timeout = 1"},
}


class MigrationError(SystemExit):
    """End the command with one line; the schema is at a whole revision."""


def engine(url: URL) -> Engine:
    """Return an engine whose connections end when they are closed, locks and all."""
    arguments = CONNECT_ARGUMENTS.get(url.get_backend_name(), {})
    return create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)


def say(text: str) -> None:
    """Print one line at once, for whoever follows the job's log."""
    print(text, flush=True)


@contextmanager
def only_one(lock_connection: Connection, patience: int) -> Iterator[None]:
    """Hold the advisory lock; wait for another migration that has it, but not for ever."""
    statement = TRY_LOCK.get(lock_connection.dialect.name)
    deadline = time.monotonic() + patience
    waiting = False
    while statement and not lock_connection.exec_driver_sql(statement).scalar():
        if time.monotonic() >= deadline:
            raise MigrationError(f"another migration still runs after {patience} s: gave up")
        if not waiting:
            say(f"another migration runs: waiting for it, {patience} s at most")
        waiting = True
        time.sleep(PAUSE_SECONDS)
    # The lock is the session's; an open transaction would only hold back vacuum.
    lock_connection.commit()
    yield


def migrate(connection: Connection, patience: int) -> None:
    """Run the command's migrations; each is one transaction, tried until it gets its locks."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return run(connection)
        except DBAPIError as error:
            if not timed_out_on_lock(error):
                raise
            if time.monotonic() >= deadline:
                raise MigrationError(
                    f"migration failed: a table stayed locked for {patience} s: {cause(error)}"
                ) from error
            say("a table is locked: letting its users pass, then trying again")
        connection.rollback()
        time.sleep(PAUSE_SECONDS)


def timed_out_on_lock(error: DBAPIError) -> bool:
    """Tell whether a statement gave up waiting for a lock."""
    return not driver_codes(error).isdisjoint(LOCK_TIMEOUT_CODES)


def run(connection: Connection) -> None:
    """Configure Alembic for this connection and run what the command asks for."""
    applied: list[str] = []

    # Alembic types a step's revision as one without its script's text, which it has.
    def tell(ctx: MigrationContext, step: Any, heads: Collection[Any],
             run_args: Mapping[str, Any]) -> None:
        applied.append(step.up_revision_id)
        done = "upgraded to" if step.is_upgrade else "downgraded from"
        say(f"{done} {step.up_revision_id}: {step.up_revision.doc}")

    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        transaction_per_migration=True,
        on_version_apply=tell,
        **current_app.extensions["migrate"].configure_args,
    )
    revision = context.get_context().get_current_revision()
    connection.rollback()
    if wants_head() and is_newer(revision):
        return say(f"the schema is at {revision}, newer than this code: nothing to do")
    with context.begin_transaction():
        context.run_migrations()
    if wants_head() and not applied:
        say(f"schema is up to date: {revision}")


def wants_head() -> bool:
    """Tell whether the command is an upgrade to this code's newest revision."""
    return context.get_context().opts.get("destination_rev") in ("head", "heads")


def is_newer(revision: str | None) -> bool:
    """Tell whether the database is at a revision that only a later release knows."""
    scripts: ScriptDirectory = context.script
    known = {script.revision for script in scripts.walk_revisions()}
    return revision is not None and revision not in known


def main() -> None:
    """Run the command under the lock; a database error ends it with one line."""
    source = engine(db.engine.url)
    patience = current_config().migration_lock_wait
    try:
        with source.connect() as lock_connection, source.connect() as connection:
            with only_one(lock_connection, patience):
                migrate(connection, patience)
    except DBAPIError as error:
        raise MigrationError(f"migration failed: {cause(error)}") from error


if context.is_offline_mode():
    raise MigrationError("migrations run on a database only: their SQL depends on its state")
main()
