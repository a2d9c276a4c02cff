"""Count a visit on PostgreSQL in one statement, which is one round trip.

It goes straight to the driver's connection: each page would otherwise wait four times, to begin,
to count, to read and to commit, and pay for SQLAlchemy's execution of each.
"""

import select
import time
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg2
import sqlalchemy
from sqlalchemy import Engine, PoolProxiedConnection, func
from sqlalchemy.exc import DBAPIError

from app.database import DEADLOCK_ATTEMPTS, is_deadlock, transact
from app.figures import DAYS_SHOWN, Tally
from app.models import NewVisitors

PREPARE = "PREPARE add_to_visitors (bytea) AS SELECT * FROM add_to_visitors($1)"
EXECUTE = "EXECUTE add_to_visitors (%s)"
# Through a pooler, the next statement may run in another session, where nothing is prepared.
SELECT = "SELECT * FROM add_to_visitors(%s)"
# Visits don't change past days, but a mend may.
PAST_SECONDS = 60


class Past(NamedTuple):
    """The new visitors of the days before yesterday, which no visit changes any more."""

    new_by_day: Mapping[date, int]
    yesterday: date
    expires: float


pasts: WeakKeyDictionary[Engine, Past] = WeakKeyDictionary()


def count_visit(engine: Engine, visitor: bytes) -> Tally:
    """Add one visit, durable when this returns, and return the figures.

    Only a deadlock is retried, of which the server says that it left no changes. A connection
    that breaks off may have counted the visit, and libpq doesn't tell why it did: its last error,
    without a code, replaces the server's.
    """
    attempt = 1
    while True:
        try:
            visits, total, today, new_today, new_yesterday = execute(engine, visitor)
            break
        except DBAPIError as error:
            if not is_deadlock(error) or attempt == DEADLOCK_ATTEMPTS:
                raise
            attempt += 1
    yesterday = today - timedelta(days=1)
    past = past_until(engine, yesterday)
    days = {**past.new_by_day, yesterday: int(new_yesterday), today: int(new_today)}
    return Tally(visits, total, today, days)


def past_until(engine: Engine, yesterday: date) -> Past:
    """Return the days before yesterday, from this process or, once a minute, from the database.

    Yesterday isn't among them: a visit that began just before midnight may still be counted.
    """
    past = pasts.get(engine)
    if past is None or past.yesterday != yesterday or past.expires < time.monotonic():
        past = Past(read_past(engine, yesterday), yesterday, time.monotonic() + PAST_SECONDS)
        pasts[engine] = past
    return past


def read_past(engine: Engine, yesterday: date) -> Mapping[date, int]:
    """Read the days before yesterday that a page shows, oldest first."""
    first = yesterday - timedelta(days=DAYS_SHOWN - 2)
    query = (
        sqlalchemy.select(NewVisitors.day, func.sum(NewVisitors.visitors))
        .where(NewVisitors.day >= first, NewVisitors.day < yesterday)
        .group_by(NewVisitors.day).order_by(NewVisitors.day)
    )
    rows = transact(engine, lambda connection: connection.execute(query).all())
    return {day: int(count) for day, count in rows}


def execute(engine: Engine, visitor: bytes) -> tuple[Any, ...]:
    """Run the statement on a pooled connection; raises SQLAlchemy's error of the driver's."""
    driver = engine.dialect.loaded_dbapi
    try:
        pooled = open_connection(engine)
        try:
            return row(pooled, (psycopg2.Binary(visitor),))
        except driver.Error:
            if getattr(pooled.driver_connection, "closed", True):
                pooled.invalidate()
            raise
        finally:
            pooled.close()
    except driver.Error as error:
        raise DBAPIError.instance(
            SELECT, None, error, driver.Error, hide_parameters=True, dialect=engine.dialect,
        ) from error


def open_connection(engine: Engine) -> PoolProxiedConnection:
    """Return a connection that the server hasn't closed while it was idle.

    A server says nothing unasked unless it ends the session, so this needs no round trip.
    """
    while True:
        pooled = engine.raw_connection()
        if not is_readable(pooled.driver_connection):
            return pooled
        pooled.invalidate()
        pooled.close()


def is_readable(connection: Any) -> bool:
    """Return whether the server has said something, or has gone."""
    return bool(select.select([connection], [], [], 0)[0])


def row(pooled: PoolProxiedConnection, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Run the statement in a transaction of its own, and return its one row."""
    connection: Any = pooled.driver_connection
    info = pooled.info
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            if info["pooler"]:
                # Both in one message, and so in one transaction.
                limits, parameters = info["limits"]
                cursor.execute(f"{limits}; {SELECT}", (*parameters, *values))
            else:
                if "prepared" not in info:
                    cursor.execute(PREPARE)
                    info["prepared"] = True
                cursor.execute(EXECUTE, values)
            found: tuple[Any, ...] = cursor.fetchone()
            return found
    finally:
        if not connection.closed:
            connection.autocommit = False
