"""Count visits exactly, even under concurrency."""

from datetime import timedelta

from sqlalchemy import Connection, Engine, bindparam, func, null, select, union_all
from sqlalchemy.dialects import mysql, sqlite

from app import one_statement
from app.database import transact
from app.figures import DAYS_SHOWN, Tally, utc_today
from app.models import NewVisitors, Visitor, VisitorTotal

visitors = Visitor.__table__
visitor_totals = VisitorTotal.__table__
new_visitors = NewVisitors.__table__

# Only the insert fires the triggers that count a new visitor.
SQLITE_INSERT = sqlite.insert(visitors).values(visits=1)
SQLITE_UPSERT = SQLITE_INSERT.on_conflict_do_update(
    index_elements=["visitor"],
    set_={"visits": visitors.c.visits + 1, "last_day": SQLITE_INSERT.excluded.last_day},
).returning(visitors.c.visits)
MYSQL_INSERT = mysql.insert(visitors).values(visits=1)
MYSQL_UPSERT = MYSQL_INSERT.on_duplicate_key_update(
    visits=visitors.c.visits + 1, last_day=MYSQL_INSERT.inserted.last_day
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
    if engine.dialect.name == "postgresql":
        return one_statement.count_visit(engine, visitor)
    return transact(engine, lambda connection: tally(connection, add_visit(connection, visitor)))


def read_tally(engine: Engine, visitor: bytes) -> Tally:
    """Return the figures without counting a visit."""
    return transact(engine, lambda connection: tally(connection, visits_of(connection, visitor)))


def read_figures(engine: Engine) -> Tally:
    """Return the figures of no visitor in particular."""
    return transact(engine, lambda connection: tally(connection, 0))


def add_visit(connection: Connection, visitor: bytes) -> int:
    """Insert the visitor or increment their visits; return the new number of visits."""
    values = {"visitor": visitor, "last_day": utc_today()}
    if connection.dialect.name == "mysql":
        # MySQL has no RETURNING; the upsert locked the row, so this read is exact.
        connection.execute(MYSQL_UPSERT, values)
        return visits_of(connection, visitor)
    return int(connection.execute(SQLITE_UPSERT, values).scalar_one())


def visits_of(connection: Connection, visitor: bytes) -> int:
    """Return the visitor's number of visits, 0 for an unknown visitor."""
    return int(connection.execute(VISITS, {"visitor": visitor}).scalar() or 0)


def tally(connection: Connection, visits: int) -> Tally:
    """Read the total and the recent days, including this transaction's changes."""
    today = utc_today()
    since = today - timedelta(days=DAYS_SHOWN - 1)
    rows = connection.execute(FIGURES, {"since": since}).all()
    total = sum(int(count or 0) for day, count in rows if day is None)
    days = sorted((day, int(count)) for day, count in rows if day is not None)
    return Tally(visits, total, today, dict(days))
