"""count visitors, and exactly how many there are."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from app.models import APP_ROLE

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The trigger's function runs with its owner's rights, so that the application can't
# write totals itself; therefore its search_path is fixed, the temporary schema last.
POSTGRESQL = (
    """
    CREATE FUNCTION count_visitor() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO visitor_totals AS total (slot, visitors) VALUES (pg_backend_pid() % 64, 1)
        ON CONFLICT (slot) DO UPDATE SET visitors = total.visitors + 1;
        RETURN NULL;
    END $$
    """,
    """
    DO $$ BEGIN
        EXECUTE format(
            'ALTER FUNCTION count_visitor() SET search_path = %I, pg_temp', current_schema());
    END $$
    """,
    "REVOKE ALL ON FUNCTION count_visitor() FROM PUBLIC",
    """
    CREATE TRIGGER count_visitor AFTER INSERT ON visitors
    FOR EACH ROW EXECUTE FUNCTION count_visitor()
    """,
    f"""
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP_ROLE}') THEN
            GRANT SELECT, INSERT, UPDATE ON visitors TO {APP_ROLE};
            GRANT SELECT ON visitor_totals, alembic_version TO {APP_ROLE};
        END IF;
    END $$
    """,
)
MYSQL = (
    """
    CREATE TRIGGER count_visitor AFTER INSERT ON visitors FOR EACH ROW
    INSERT INTO visitor_totals (slot, visitors) VALUES (CONNECTION_ID() % 64, 1)
    ON DUPLICATE KEY UPDATE visitors = visitors + 1
    """,
)
# SQLite has one writer at a time, so one slot.
SQLITE = (
    """
    CREATE TRIGGER count_visitor AFTER INSERT ON visitors BEGIN
        INSERT INTO visitor_totals (slot, visitors) VALUES (0, 1)
        ON CONFLICT (slot) DO UPDATE SET visitors = visitors + 1;
    END
    """,
)
TRIGGER = {"postgresql": POSTGRESQL, "mysql": MYSQL, "sqlite": SQLITE}


def upgrade() -> None:
    """Make the visitors' table, the slots of their total, and the trigger between."""
    op.create_table(
        "visitors",
        sa.Column(
            "visitor",
            sa.LargeBinary(16).with_variant(mysql.BINARY(16), "mysql", "mariadb"),
            primary_key=True,
        ),
        sa.Column("visits", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "visitor_totals",
        sa.Column("slot", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("visitors", sa.BigInteger, nullable=False),
        postgresql_with={"fillfactor": 50},
    )
    for statement in TRIGGER[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    """Drop everything; the trigger goes with its table."""
    op.drop_table("visitors")
    op.drop_table("visitor_totals")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION count_visitor()")
