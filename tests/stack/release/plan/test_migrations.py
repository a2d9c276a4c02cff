"""A plan lists the migrations that a deploy runs."""

from pathlib import Path
from typing import Any

import pytest

from stack.inventory.settings import ROOT
from stack.release.plan import migrations
from stack.state import revisions
from stack.state.releases import Record
from stack.state.revisions import Revision

pytestmark = pytest.mark.unit

VERSIONS = ROOT / "migrations/versions"
FIRST, SECOND = Revision("0001", None), Revision("0002", "0001", "1.3 needs the column day")


def record(revisions: list[dict[str, Any]] | None) -> Record:
    return Record("1.4.0+57", "0123456", "ada", 0, 1, {}, {}, revisions=revisions)


def test_the_recorded_migrations_are_applied() -> None:
    assert migrations.known([FIRST, SECOND], record([])) == {"0001", "0002"}
    assert migrations.known([], None) == set()


def test_without_a_record_the_running_releases_migrations_are_applied() -> None:
    assert migrations.known(None, record([{"id": "0001", "down": None}])) == {"0001"}


def test_before_the_first_release_no_migration_is_applied() -> None:
    assert migrations.known(None, None) == set()


def test_unrecorded_migrations_are_not_guessed() -> None:
    assert migrations.known(None, record(None)) is None


def test_a_migration_is_listed_with_its_description_and_what_it_removes(tmp_path: Path) -> None:
    tmp_path.joinpath("a.py").write_text(
        '"""Count visits.\n\nMore on it."""\nrevision = "0001"\ndown_revision = None\n')
    tmp_path.joinpath("b.py").write_text('revision = "0002"\ndown_revision = "0001"\n')
    tmp_path.joinpath("__init__.py").touch()
    assert migrations.lines(tmp_path, [FIRST, SECOND]) == [
        "0001: Count visits.",
        "0002: no description (contracts: 1.3 needs the column day)"]


def test_applied_migrations_are_not_listed() -> None:
    steps = revisions.newer_than(revisions.read(VERSIONS), {"0001"})
    assert migrations.lines(VERSIONS, steps) == [
        "0002: count the new visitors of each day.",
        "0003: count a visit in one statement, and know the day of a visitor's last one."]
    assert migrations.lines(VERSIONS, []) == []
