"""Print the SQL that revisions send to PostgreSQL, given their ids.

./fab plan --sql runs it in the app's image, which has Alembic and the revisions. It
bypasses migrations/env.py, which needs a database.
"""

import sys

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory


def main(revisions: list[str]) -> None:
    """Print each revision's transaction, headed by its name."""
    scripts = ScriptDirectory("migrations")
    for script in map(scripts.get_revision, revisions):
        print(f"-- {script.revision}: {script.doc}")
        context = MigrationContext.configure(
            dialect_name="postgresql", dialect_opts={"paramstyle": "named"},
            opts={"as_sql": True, "output_buffer": sys.stdout})
        with context.begin_transaction(), Operations.context(context):
            script.module.upgrade()


if __name__ == "__main__":
    main(sys.argv[1:])
