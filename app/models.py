"""The database's tables: migrations create them, visits fill them."""

from datetime import date

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import BigInteger, LargeBinary, SmallInteger
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The base of all models."""


db = SQLAlchemy(model_class=Base)

# The PostgreSQL role of the application where migrations run as another role. They
# grant it the rights it needs, or nothing if the role does not exist.
APP_ROLE = "tally_app"

# MySQL cannot index a BLOB without a prefix length; the digest has 16 bytes.
Digest = LargeBinary(16).with_variant(mysql.BINARY(16), "mysql", "mariadb")

# Statements run on the models' tables through Core, which is faster than a session.
# mypy does not see that db.Model is a class.


class Visitor(db.Model):  # type: ignore[name-defined, misc]
    """A visitor, known only by a digest: no address, no serial number, no time but a UTC day."""

    __tablename__ = "visitors"

    visitor: Mapped[bytes] = mapped_column(Digest, primary_key=True)
    visits: Mapped[int] = mapped_column(BigInteger)
    # The last visit's; empty if the release before counted it. A retention needs it.
    last_day: Mapped[date | None]


class VisitorTotal(db.Model):  # type: ignore[name-defined, misc]
    """A slot of the number of visitors, which is the sum of all slots.

    Triggers add to the slot of their own database connection, so that new visitors
    do not wait for a single row.
    """

    __tablename__ = "visitor_totals"
    __table_args__ = {"postgresql_with": {"fillfactor": 50}}

    slot: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    visitors: Mapped[int] = mapped_column(BigInteger)


class NewVisitors(db.Model):  # type: ignore[name-defined, misc]
    """A slot of the new visitors of a UTC day; few slots, as the chart reads 30 days."""

    __tablename__ = "new_visitors"
    __table_args__ = {"postgresql_with": {"fillfactor": 50}}

    day: Mapped[date] = mapped_column(primary_key=True)
    slot: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    visitors: Mapped[int] = mapped_column(BigInteger)


class ForgottenVisitors(db.Model):  # type: ignore[name-defined, misc]
    """The visitors whose digests were deleted: one row, since only commands write it."""

    __tablename__ = "forgotten_visitors"

    slot: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    visitors: Mapped[int] = mapped_column(BigInteger)
