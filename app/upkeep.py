"""Commands for an operator: recount, forget a visitor, forget those who stayed away.

They run as the owner of the tables, as a migration does: the application's own user may neither
delete a visitor nor change a total.

The total is everyone who ever visited. To forget a visitor deletes the digest and keeps the
count, in the total and in the day's figure: total = visitors known + visitors forgotten = sum of
the days. Somebody who was forgotten and comes again is a new visitor.
"""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any, TypeVar

import click
from flask import Flask, current_app
from flask.cli import with_appcontext
from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError, TimeoutError

from app.addresses import visitor_digest
from app.database import transact
from app.figures import utc_today
from app.logs import cause
from app.models import ForgottenVisitors, NewVisitors, Visitor, VisitorTotal, db

Result = TypeVar("Result")

# Few enough that no visitor waits long for a row.
BATCH = 1000
# The days were not counted from the beginning. Visitors of a day that nobody knows belong here.
UNKNOWN_DAY = date(1970, 1, 1)
visitors = Visitor.__table__
# Their statements have no common type.
INSERTS: dict[str, Callable[[Table], Any]] = {
    "postgresql": postgresql.insert, "mysql": mysql.insert, "sqlite": sqlite.insert}


def register(app: Flask) -> None:
    """Add the commands to flask."""
    for command in (reconcile, forget, retention):
        app.cli.add_command(command)


def done(work: Callable[[Connection], Result]) -> Result:
    """Run work in a transaction; an error ends the command with one line."""
    try:
        return transact(db.engine, work)
    except (DBAPIError, TimeoutError) as error:
        raise click.ClickException(
            f"{cause(error)}: run this as the owner of the tables, like flask db upgrade"
        ) from error


def add(connection: Connection, table: Table, number: int, **key: object) -> None:
    """Add a number to one row of a table of counts; make the row if it isn't there."""
    name = connection.dialect.name
    statement = INSERTS[name](table).values(**key, visitors=number)
    more = {"visitors": table.c.visitors + number}
    if name == "mysql":
        connection.execute(statement.on_duplicate_key_update(**more))
    else:
        columns = list(table.primary_key.columns)
        connection.execute(statement.on_conflict_do_update(index_elements=columns, set_=more))


@click.command()
@click.option("--mend", is_flag=True, help="Correct the total and the days.")
@with_appcontext
def reconcile(mend: bool) -> None:
    """Recount the visitors and compare the total and the days with them."""
    counted, total, days = done(lambda connection: recount(connection, mend))
    click.echo(f"{counted} visitors, {total} in the total, {days} in the days")
    if counted == total == days:
        click.echo("no drift")
    elif mend:
        click.echo(f"mended: {counted - total:+d} in the total, {counted - days:+d} in the days")
    else:
        raise click.ClickException(
            f"drift of {total - counted:+d} in the total and {days - counted:+d} in the days: "
            "run flask reconcile --mend"
        )


def recount(connection: Connection, mend: bool) -> tuple[int, int, int]:
    """Return the visitors, the total and the sum of the days, all of one moment.

    What is missing is added, so that visits meanwhile stay counted.
    """
    sums = [select(func.coalesce(func.sum(model.visitors), 0)).scalar_subquery()
            for model in (ForgottenVisitors, VisitorTotal, NewVisitors)]
    known = select(func.count()).select_from(visitors).scalar_subquery()
    rows, forgotten, total, days = map(int, connection.execute(select(known, *sums)).one())
    counted = rows + forgotten
    if mend and counted != total:
        add(connection, VisitorTotal.__table__, counted - total, slot=0)
    if mend and counted != days:
        add(connection, NewVisitors.__table__, counted - days, day=UNKNOWN_DAY, slot=0)
    return counted, total, days


@click.command()
@click.argument("address")
@with_appcontext
def forget(address: str) -> None:
    """Delete what is stored of the visitor with this ADDRESS; the totals keep the count."""
    try:
        digest = visitor_digest(address, current_app.config["VISITOR_KEY"])
    except ValueError:
        raise click.ClickException("expected an address such as 192.0.2.1 or 2001:db8::1") from None
    found = done(lambda connection: delete_where(connection, visitors.c.visitor == digest))
    click.echo("forgotten" if found else "nothing is stored of this visitor")


@click.command()
@click.argument("days", type=click.IntRange(1, 36500))
@with_appcontext
def retention(days: int) -> None:
    """Delete what is stored of visitors who didn't come in the last DAYS days.

    A visitor whose last day isn't known, because an older release counted the visit, gets today's.
    """
    last, forgotten = b"", 0
    limit = utc_today() - timedelta(days=days)
    while (end := done(lambda connection: end_of_batch(connection, last))) is not None:
        forgotten += done(lambda connection: sweep(connection, last, end, limit))
        last = end
    click.echo(f"{forgotten} visitors forgotten")


def end_of_batch(connection: Connection, after: bytes) -> bytes | None:
    """Return the last digest of the next batch, or None if there is none."""
    batch = select(visitors.c.visitor).where(visitors.c.visitor > after) \
        .order_by(visitors.c.visitor).limit(BATCH)
    rows = connection.scalars(batch).all()
    return bytes(rows[-1]) if rows else None


def sweep(connection: Connection, after: bytes, end: bytes, limit: date) -> int:
    """Delete a batch's visitors whose last day is before the limit; return their number."""
    batch = (visitors.c.visitor > after) & (visitors.c.visitor <= end)
    unknown = update(visitors).where(batch & visitors.c.last_day.is_(None))
    connection.execute(unknown.values(last_day=utc_today()))
    return delete_where(connection, batch & (visitors.c.last_day < limit))


def delete_where(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Delete visitors and count them as forgotten, in one transaction; return their number."""
    number = connection.execute(delete(visitors).where(condition)).rowcount
    if number:
        add(connection, ForgottenVisitors.__table__, number, slot=0)
    return int(number)
