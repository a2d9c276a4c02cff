"""Each revision's SQL lets the running release keep serving.

A deploy migrates before it updates, so a revision expands the schema. One that removes
something says so in `contracts`, and may then break older code. But none may block visitors
with a lock on a table that they use.
"""

import io
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

from stack.state import revisions
from tests.files.tree import ROOT, installed

pytestmark = pytest.mark.style

# Rules that don't apply to this project, and why.
EXCLUDED = {
    "prefer-bigint-over-smallint": "a slot's number is small by what computes it",
    "require-lock-timeout": "migrations/env.py sets one on every migration's connection",
    "require-statement-timeout": "and this one",
}
# These find more that breaks running code; squawk disables them by default.
ADDED = (
    "ban-disable-trigger", "ban-drop-trigger", "ban-new-write-restriction",
    "ban-replace-view-function",
)
# Rules that a contracting revision may break. Changing a type and SET NOT NULL aren't among
# them: they break running code too, but above all they lock the table.
BREAKING = (
    "adding-required-field", "ban-alter-identity", "ban-drop-column", "ban-drop-constraint",
    "ban-drop-default", "ban-drop-domain", "ban-drop-extension", "ban-drop-function",
    "ban-drop-generated-expression", "ban-drop-not-null", "ban-drop-schema", "ban-drop-sequence",
    "ban-drop-table", "ban-drop-type", "ban-drop-view", "ban-set-schema", "renaming-column",
    "renaming-object", "renaming-table", *ADDED,
)
# Code that doesn't know a column never writes a value that could be rejected.
HARMLESS = ("ban-new-write-restriction", "A new column constraint ")

SAMPLE = '''"""a sample."""
import sqlalchemy as sa
from alembic import op
revision = "0001"
down_revision = None
{mark}

def upgrade():
    {step}
'''
MARK = 'contracts = "0.9 and older need it"'


@dataclass(frozen=True)
class Finding:
    """One violation that squawk has found."""

    revision: str
    rule: str
    message: str


def findings(migrations: Path) -> list[Finding]:
    """Return squawk's findings for a folder's revisions, from the first to the newest."""
    scripts = ScriptDirectory(str(migrations))
    return [found for revision in revisions.read(migrations / "versions")
            for found in lint(revision, statements(scripts.get_revision(revision.id)))]


def statements(script: Script) -> str:
    """Return the SQL that a revision sends to PostgreSQL, with its transactions."""
    written = io.StringIO()
    options = {"as_sql": True, "output_buffer": written}
    context = MigrationContext.configure(
        dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=options)
    with context.begin_transaction(), Operations.context(context):
        script.module.upgrade()
    return written.getvalue()


def lint(revision: revisions.Revision, sql: str) -> list[Finding]:
    """Return squawk's findings for a revision's SQL, without those that `contracts` allows."""
    excluded = [*EXCLUDED, *(BREAKING if revision.contracts else ())]
    command = [installed("squawk"), "--pg-version=17", "--reporter=json",
               f"--include={','.join(ADDED)}", f"--exclude={','.join(excluded)}"]
    done = subprocess.run(command, cwd=ROOT, input=sql, capture_output=True, text=True)
    if done.stderr or done.returncode not in (0, 1):
        pytest.fail(f"squawk ended with {done.returncode}: {done.stderr}", pytrace=False)
    found = [Finding(revision.id, each["rule_name"], each["message"])
             for each in json.loads(done.stdout)]
    return [each for each in found if not is_harmless(each)]


def is_harmless(finding: Finding) -> bool:
    rule, beginning = HARMLESS
    return finding.rule == rule and finding.message.startswith(beginning)


def test_squawk_finds_nothing_in_the_revisions() -> None:
    assert findings(ROOT / "migrations") == []


def test_the_whole_revision_is_linted() -> None:
    scripts = ScriptDirectory(str(ROOT / "migrations"))

    sql = statements(scripts.get_revision("0001"))

    assert sql.startswith("BEGIN;\n\nCREATE TABLE visitors (")
    assert "CREATE TRIGGER count_visitor AFTER INSERT ON visitors\n" in sql
    assert "pg_backend_pid() % 64" in sql
    assert sql.rstrip().endswith("COMMIT;")


Rules = Callable[..., set[str]]


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    """Return the rules that a revision with this step breaks."""
    def of(*steps: str, mark: str = "") -> set[str]:
        folder = tmp_path / "versions"
        folder.mkdir(exist_ok=True)
        folder.joinpath("0001.py").write_text(
            SAMPLE.format(mark=mark, step="\n    ".join(steps)))
        return {found.rule for found in findings(tmp_path)}
    return of


@pytest.mark.parametrize(("step", "rule"), [
    ('op.drop_column("visitors", "visits")', "ban-drop-column"),
    ('op.alter_column("visitors", "visits", new_column_name="times")', "renaming-column"),
    ('op.alter_column("visitors", "visits", server_default=None)', "ban-drop-default"),
    ('op.alter_column("visitors", "visits", nullable=True)', "ban-drop-not-null"),
    ('op.drop_constraint("positive", "visitors")', "ban-drop-constraint"),
    ('op.drop_table("visitors")', "ban-drop-table"),
    ('op.rename_table("visitors", "guests")', "renaming-table"),
    ('op.add_column("visitors", sa.Column("name", sa.Text, nullable=False))',
     "adding-required-field"),
    ('op.create_check_constraint("few", "visitors", "visits < 9", postgresql_not_valid=True)',
     "ban-new-write-restriction"),
    ('op.execute("DROP TRIGGER count_visitor ON visitors")', "ban-drop-trigger"),
    ('op.execute("ALTER TABLE visitors DISABLE TRIGGER count_visitor")', "ban-disable-trigger"),
    ('op.execute("DROP FUNCTION count_visitor()")', "ban-drop-function"),
    ('op.execute("CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1")',
     "ban-replace-view-function"),
])
def test_a_step_that_breaks_running_code_needs_the_mark(rules: Rules, step: str, rule: str) -> None:
    assert rules(step) == {rule}
    assert rules(step, mark=MARK) == set()


@pytest.mark.parametrize(("step", "rule"), [
    ('op.create_index("many", "visitors", ["visits"])', "require-concurrent-index-creation"),
    ('op.create_index("many", "visitors", ["visits"], if_not_exists=True, '
     "postgresql_concurrently=True)", "ban-concurrent-index-creation-in-transaction"),
    ('op.drop_index("many", "visitors")', "require-concurrent-index-deletion"),
    ('op.alter_column("visitors", "visits", type_=sa.Text)', "changing-column-type"),
    ('op.alter_column("visitors", "visits", nullable=False)', "adding-not-nullable-field"),
    ('op.create_check_constraint("few", "visitors", "visits < 9")', "constraint-missing-not-valid"),
    ('op.create_unique_constraint("one", "visitors", ["visits"])', "disallowed-unique-constraint"),
    ('op.create_foreign_key("known", "visitors", "days", ["visits"], ["day"])',
     "adding-foreign-key-constraint"),
    ('op.add_column("visitors", sa.Column("seen", sa.DateTime(True), '
     'server_default=sa.func.clock_timestamp()))', "adding-field-with-default"),
    ('op.execute("TRUNCATE visitors CASCADE")', "ban-truncate-cascade"),
])
def test_locking_or_emptying_a_table_is_not_a_contraction(
    rules: Rules, step: str, rule: str
) -> None:
    assert rule in rules(step)
    assert rule in rules(step, mark=MARK)


@pytest.mark.parametrize("steps", [
    ('op.add_column("visitors", sa.Column("name", sa.Text))',),
    ('op.add_column("visitors", sa.Column("seen", sa.BigInteger, nullable=False, '
     'server_default="0"))',),
    ('op.create_table("days", sa.Column("day", sa.Date, primary_key=True), '
     'sa.Column("count", sa.BigInteger, nullable=False, unique=True))',
     'op.create_index("counts", "days", ["count"])'),
    ("with op.get_context().autocommit_block():",
     '    op.drop_index("many", "visitors", if_exists=True, postgresql_concurrently=True)',
     '    op.create_index("many", "visitors", ["visits"], if_not_exists=True, '
     "postgresql_concurrently=True)"),
    ('op.execute("ALTER TABLE visitors VALIDATE CONSTRAINT few")',),
], ids=["nullable column", "column with default", "new table", "concurrent index", "validation"])
def test_expanding_without_a_lock_is_fine(rules: Rules, steps: tuple[str, ...]) -> None:
    assert rules(*steps) == set()


def test_sql_that_postgresql_would_reject_is_found(rules: Rules) -> None:
    assert rules('op.execute("ALTER TABEL visitors")', mark=MARK) == {"syntax-error"}


def test_a_statement_may_ignore_a_rule_explicitly(rules: Rules) -> None:
    assert rules('op.execute("-- squawk-ignore ban-drop-trigger\\nDROP TRIGGER t ON visitors")') \
        == set()
