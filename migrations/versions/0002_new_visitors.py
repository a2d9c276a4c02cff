"""count the new visitors of each day."""

import sqlalchemy as sa
from alembic import op

from app.models import APP_ROLE

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A trigger of its own beside 0001's: no code or function of the release before
# changes. Triggers fire by name, so all transactions lock the two tables in one order.
POSTGRESQL = (
    """
    CREATE FUNCTION count_visitor_of_day() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO new_visitors AS counted (day, slot, visitors)
        VALUES ((now() AT TIME ZONE 'UTC')::date, pg_backend_pid() % 8, 1)
        ON CONFLICT (day, slot) DO UPDATE SET visitors = counted.visitors + 1;
        RETURN NULL;
    END $$
    """,
    """
    DO $$ BEGIN
        EXECUTE format(
            'ALTER FUNCTION count_visitor_of_day() SET search_path = %I, pg_temp',
            current_schema());
    END $$
    """,
    "REVOKE ALL ON FUNCTION count_visitor_of_day() FROM PUBLIC",
    """
    CREATE TRIGGER count_visitor_of_day AFTER INSERT ON visitors
    FOR EACH ROW EXECUTE FUNCTION count_visitor_of_day()
    """,
    f"""
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP_ROLE}') THEN
            GRANT SELECT ON new_visitors TO {APP_ROLE};
        END IF;
    END $$
    """,
)
MYSQL = (
    """
    CREATE TRIGGER count_visitor_of_day AFTER INSERT ON visitors FOR EACH ROW
    INSERT INTO new_visitors (day, slot, visitors) VALUES (UTC_DATE(), CONNECTION_ID() % 8, 1)
    ON DUPLICATE KEY UPDATE visitors = visitors + 1
    """,
)
SQLITE = (
    """
    CREATE TRIGGER count_visitor_of_day AFTER INSERT ON visitors BEGIN
        INSERT INTO new_visitors (day, slot, visitors) VALUES (date('now'), 0, 1)
        ON CONFLICT (day, slot) DO UPDATE SET visitors = visitors + 1;
    END
    """,
)
TRIGGER = {"postgresql": POSTGRESQL, "mysql": MYSQL, "sqlite": SQLITE}


def upgrade() -> None:
    """Make the table of days and the trigger that fills it."""
    op.create_table(
        "new_visitors",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("slot", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("visitors", sa.BigInteger, nullable=False),
        postgresql_with={"fillfactor": 50},
    )
    for statement in TRIGGER[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    """Drop the trigger before the table that it fills."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER count_visitor_of_day ON visitors")
        op.execute("DROP FUNCTION count_visitor_of_day()")
    else:
        op.execute("DROP TRIGGER count_visitor_of_day")
    op.drop_table("new_visitors")
