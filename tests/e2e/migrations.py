"""Migrations that a test adds to the clone."""

# Asks the database for the last step that it has taken.
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
    """Return the file of a step after another one; it prints something first, if told to."""
    statements = [f'print("{prints}", flush=True)'] if prints else []
    return TEXT.format(
        says=says, revision=revision, after=after,
        marked=f"contracts = {contracts!r}\n" if contracts else "",
        upgrade="\n    ".join([*statements, f'op.execute("{sql}")']))
