"""Describe the tables: the migrations make them, the visits fill them."""

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import BigInteger, Column, Date, LargeBinary, SmallInteger, Table
from sqlalchemy.dialects import mysql

db = SQLAlchemy()

# The PostgreSQL role that the application runs as, where migrations run as another.
# They grant it what it needs, and nothing if there is no such role.
APP_ROLE = "tally_app"

# MySQL can't make a key of a BLOB without a prefix length; the digest has 16 bytes.
Digest = LargeBinary(16).with_variant(mysql.BINARY(16), "mysql", "mariadb")

# A visitor is known by a digest alone: no address, no time, no serial number.
visitors: Table = Table(
    "visitors",
    db.metadata,
    Column("visitor", Digest, primary_key=True),
    Column("visits", BigInteger, nullable=False),
)

# The sum over the slots is the number of visitors. Triggers add to the slot of their
# own database connection, so that new visitors don't queue for one row.
visitor_totals: Table = Table(
    "visitor_totals",
    db.metadata,
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("visitors", BigInteger, nullable=False),
    postgresql_with={"fillfactor": 50},
)

# New visitors of each UTC day. Fewer slots: the chart reads thirty days of them.
new_visitors: Table = Table(
    "new_visitors",
    db.metadata,
    Column("day", Date, primary_key=True),
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("visitors", BigInteger, nullable=False),
    postgresql_with={"fillfactor": 50},
)
