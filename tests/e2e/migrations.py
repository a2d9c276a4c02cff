"""Migrations that a test adds to the clone."""

# Selects the database's current revision.
HEAD = "SELECT version_num FROM alembic_version"
TEXT = '''"""{says}"""
from alembic import op

revision = "{revision}"
down_revision = "{after}"
branch_labels = None
depends_on = None
{marked}

def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    pass
'''


def step(revision: str, after: str, sql: str, *, says: str = "take a step.", prints: str = "",
         contracts: str = "") -> str:
    """Return a migration's file; with `prints`, it prints that first."""
    statements = [f'print("{prints}", flush=True)'] if prints else []
    return TEXT.format(
        says=says, revision=revision, after=after,
        marked=f"contracts = {contracts!r}\n" if contracts else "",
        upgrade="\n    ".join([*statements, f'op.execute("{sql}")']))
