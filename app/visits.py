"""Count visits, exactly, whatever the concurrency."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

from sqlalchemy import Connection, Engine, bindparam, func, null, select, union_all
from sqlalchemy.dialects import mysql, postgresql, sqlite

from app.database import transact
from app.models import new_visitors, visitor_totals, visitors

DAYS_SHOWN = 30


@dataclass(frozen=True)
class Tally:
    """The figures of one page: this visitor's visits, all visitors, the new ones a day."""

    visits: int
    visitors: int
    today: date
    new_by_day: Mapping[date, int]


# The insert fires the triggers that count a new visitor; the update doesn't.
UPSERTS = {
    "postgresql": postgresql.insert(visitors)
    .values(visits=1)
    .on_conflict_do_update(index_elements=["visitor"], set_={"visits": visitors.c.visits + 1})
    .returning(visitors.c.visits),
    "sqlite": sqlite.insert(visitors)
    .values(visits=1)
    .on_conflict_do_update(index_elements=["visitor"], set_={"visits": visitors.c.visits + 1})
    .returning(visitors.c.visits),
}
MYSQL_UPSERT = (
    mysql.insert(visitors).values(visits=1).on_duplicate_key_update(visits=visitors.c.visits + 1)
)
VISITS = select(visitors.c.visits).where(visitors.c.visitor == bindparam("visitor"))
# One round trip for both: a row a day, and one without a day for the total.
FIGURES = union_all(
    select(new_visitors.c.day, func.sum(new_visitors.c.visitors))
    .where(new_visitors.c.day >= bindparam("since"))
    .group_by(new_visitors.c.day),
    select(null(), func.sum(visitor_totals.c.visitors)),
)


def count_visit(engine: Engine, visitor: bytes) -> Tally:
    """Add one visit and return the figures; when it returns, the visit is durable."""
    return transact(engine, lambda connection: tally(connection, add_visit(connection, visitor)))


def read_tally(engine: Engine, visitor: bytes) -> Tally:
    """Return the figures as they are, counting nothing."""
    return transact(engine, lambda connection: tally(connection, visits_of(connection, visitor)))


def add_visit(connection: Connection, visitor: bytes) -> int:
    """Insert the visitor or add one to their visits; return the visits so far."""
    if connection.dialect.name == "mysql":
        # MySQL has no RETURNING; the row is locked, so that reading it is as exact.
        connection.execute(MYSQL_UPSERT, {"visitor": visitor})
        return visits_of(connection, visitor)
    upsert = UPSERTS[connection.dialect.name]
    return int(connection.execute(upsert, {"visitor": visitor}).scalar_one())


def visits_of(connection: Connection, visitor: bytes) -> int:
    """Return how often this visitor came, 0 for one who never did."""
    return int(connection.execute(VISITS, {"visitor": visitor}).scalar() or 0)


def tally(connection: Connection, visits: int) -> Tally:
    """Read the total and the last days, with what this transaction added to them."""
    today = datetime.now(timezone.utc).date()
    since = today - timedelta(days=DAYS_SHOWN - 1)
    rows = connection.execute(FIGURES, {"since": since}).all()
    total = sum(int(count or 0) for day, count in rows if day is None)
    return Tally(visits, total, today, {day: int(count) for day, count in rows if day is not None})
