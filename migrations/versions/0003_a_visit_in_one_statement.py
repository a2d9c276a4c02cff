"""count a visit in one statement, and know the day of a visitor's last one."""

import sqlalchemy as sa
from alembic import op

from app.models import APP_ROLE

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# With the caller's rights. Each statement of the function sees what others have committed by
# then, so the total includes the visitor whose row this visit waited for. Parts of one statement
# would all see what was there when it began, and nothing of what the triggers add.
POSTGRESQL = (
    """
    CREATE FUNCTION add_to_visitors(
        digest bytea,
        OUT visits bigint, OUT total bigint,
        OUT today date, OUT new_today bigint, OUT new_yesterday bigint
    ) LANGUAGE plpgsql AS $$
    BEGIN
        today := (now() AT TIME ZONE 'UTC')::date;
        INSERT INTO visitors AS known (visitor, visits, last_day) VALUES (digest, 1, today)
        ON CONFLICT (visitor) DO UPDATE
        SET visits = known.visits + 1, last_day = excluded.last_day
        RETURNING known.visits INTO add_to_visitors.visits;
        SELECT (SELECT sum(slots.visitors) FROM visitor_totals AS slots),
               coalesce(sum(counted.visitors) FILTER (WHERE counted.day = today), 0),
               coalesce(sum(counted.visitors) FILTER (WHERE counted.day < today), 0)
        INTO total, new_today, new_yesterday
        FROM new_visitors AS counted WHERE counted.day >= today - 1;
    END $$
    """,
    f"""
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP_ROLE}') THEN
            GRANT SELECT ON forgotten_visitors TO {APP_ROLE};
        END IF;
    END $$
    """,
)


def upgrade() -> None:
    """Add the day, which older code leaves empty, and PostgreSQL's function."""
    op.add_column("visitors", sa.Column("last_day", sa.Date))
    op.create_table(
        "forgotten_visitors",
        sa.Column("slot", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("visitors", sa.BigInteger, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        for statement in POSTGRESQL:
            op.execute(statement)


def downgrade() -> None:
    """Drop the function before what it uses."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION add_to_visitors(bytea)")
    op.drop_table("forgotten_visitors")
    op.drop_column("visitors", "last_day")
