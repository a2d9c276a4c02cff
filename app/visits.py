"""Count visits exactly, even under concurrency."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone

from sqlalchemy import Connection, Engine, bindparam, func, null, select, union_all
from sqlalchemy.dialects import mysql, postgresql, sqlite

from app.database import transact
from app.models import NewVisitors, Visitor, VisitorTotal

DAYS_SHOWN = 30
visitors = Visitor.__table__
visitor_totals = VisitorTotal.__table__
new_visitors = NewVisitors.__table__


@dataclass(frozen=True)
class Tally:
    """The figures of a page: the visitor's visits, all visitors, new visitors per day."""

    visits: int
    visitors: int
    today: date
    new_by_day: Mapping[date, int]


# Only the insert fires the triggers that count a new visitor.
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
# One query for both: a row for each day, and a row without a day for the total.
FIGURES = union_all(
    select(new_visitors.c.day, func.sum(new_visitors.c.visitors))
    .where(new_visitors.c.day >= bindparam("since"))
    .group_by(new_visitors.c.day),
    select(null(), func.sum(visitor_totals.c.visitors)),
)


def count_visit(engine: Engine, visitor: bytes) -> Tally:
    """Add one visit, commit it durably and return the figures."""
    return transact(engine, lambda connection: tally(connection, add_visit(connection, visitor)))


def read_tally(engine: Engine, visitor: bytes) -> Tally:
    """Return the figures without counting a visit."""
    return transact(engine, lambda connection: tally(connection, visits_of(connection, visitor)))


def add_visit(connection: Connection, visitor: bytes) -> int:
    """Insert the visitor or increment their visits; return the new number of visits."""
    if connection.dialect.name == "mysql":
        # MySQL has no RETURNING; the upsert locked the row, so this read is exact.
        connection.execute(MYSQL_UPSERT, {"visitor": visitor})
        return visits_of(connection, visitor)
    upsert = UPSERTS[connection.dialect.name]
    return int(connection.execute(upsert, {"visitor": visitor}).scalar_one())


def visits_of(connection: Connection, visitor: bytes) -> int:
    """Return the visitor's number of visits, 0 for an unknown visitor."""
    return int(connection.execute(VISITS, {"visitor": visitor}).scalar() or 0)


def tally(connection: Connection, visits: int) -> Tally:
    """Read the total and the recent days, including this transaction's changes."""
    today = datetime.now(timezone.utc).date()
    since = today - timedelta(days=DAYS_SHOWN - 1)
    rows = connection.execute(FIGURES, {"since": since}).all()
    total = sum(int(count or 0) for day, count in rows if day is None)
    return Tally(visits, total, today, {day: int(count) for day, count in rows if day is not None})
