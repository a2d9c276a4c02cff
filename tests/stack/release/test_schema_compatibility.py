"""No release runs on a schema that its code can't use."""

from collections.abc import Sequence

import pytest

from stack.release.schema_compatibility import check_deploy, check_rollback
from stack.state.releases import Record
from stack.state.revisions import Revision
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

WHY = "0.9 and older write visits.day"
ONE, TWO, THREE = Revision("1", None), Revision("2", "1"), Revision("3", "2", WHY)
# A different second migration.
OTHER = Revision("2b", "1")


def release(*revisions: Revision | None) -> Record:
    """Return a release with these migrations; None if they were not recorded."""
    known = None if revisions == (None,) else [
        {"id": each.id, "down": each.down, "contracts": each.contracts}
        for each in revisions if each]
    return Record("1.4.0+57", "0123456", "ada@example.org", 1.0, 1.0, {}, {}, revisions=known)


@pytest.mark.parametrize(("new", "running", "applied"), [
    ((ONE, TWO), release(ONE), (ONE,)),
    ((ONE, TWO, THREE), release(ONE, TWO), (ONE, TWO)),
    ((ONE,), release(ONE, TWO), (ONE, TWO)),  # An older checkout that can run on it.
    ((ONE, TWO, THREE), None, None), ((ONE, TWO, THREE), release(None), (ONE,)),
    ((ONE, TWO, THREE), release(ONE), None)])
def test_a_compatible_migration_is_deployed(
        new: Sequence[Revision], running: Record | None,
        applied: Sequence[Revision] | None) -> None:
    check_deploy(new, running, applied)


def test_a_migration_that_breaks_the_running_release_is_refused() -> None:
    said = error_of(lambda: check_deploy((ONE, TWO, THREE), release(ONE), (ONE,)))
    assert said == (f"migration 3 removes what 1.4.0+57 may need ({WHY}): "
                    "first deploy a release whose last migration is 2")


def test_a_checkout_that_is_too_old_for_the_schema_is_refused() -> None:
    said = error_of(lambda: check_deploy((ONE, TWO), release(ONE, TWO), (ONE, TWO, THREE)))
    assert said == ("this checkout can't run on the current schema: migration 3 breaks it "
                    f"({WHY}): deploy a newer commit")


def test_a_checkout_with_other_migrations_than_the_database_is_refused() -> None:
    said = error_of(lambda: check_deploy((ONE, TWO), release(ONE, OTHER), (ONE, OTHER)))
    assert said == ("the database has migration 2b, which this checkout lacks, and lacks 2: "
                    "merge both into one line of migrations")


def test_a_rollback_shows_how_far_the_schema_stays_ahead() -> None:
    assert check_rollback(release(ONE), None) == ()
    assert check_rollback(release(ONE), (ONE, TWO)) == (TWO,)
    assert check_rollback(release(None), (ONE, TWO)) == ()


def test_a_rollback_past_a_breaking_migration_is_refused() -> None:
    assert error_of(lambda: check_rollback(release(ONE), (ONE, TWO, THREE))) == (
        f"1.4.0+57 can't run on the current schema: migration 3 breaks it ({WHY}): "
        "fix it with a new release, or choose a newer one: ./fab releases")
    assert error_of(lambda: check_rollback(release(None), (ONE, TWO, THREE))) == (
        f"the schema of 1.4.0+57 was not recorded, and migration 3 breaks older code "
        f"({WHY}): choose a newer one: ./fab releases")
