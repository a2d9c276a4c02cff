"""Check that code and schema are compatible, on deploy and on rollback."""

from collections.abc import Sequence

from stack.errors import Refused
from stack.state import revisions
from stack.state.releases import Record
from stack.state.revisions import Revision


def check_deploy(new: Sequence[Revision], running: Record | None,
                 applied: Sequence[Revision] | None) -> None:
    """Refuse a schema that the checkout or the running release can't run on.

    The running release uses the new schema until the update is complete, and again if the
    update fails. So it must already contain the migration before a contracting one.
    """
    check_checkout(new, applied or ())
    if running is None or running.schema is None or applied is None:
        return
    known = {revision.id for revision in running.schema}
    for revision in revisions.newer_than(new, {done.id for done in applied}):
        if revision.contracts and revision.down not in known:
            raise Refused(
                f"migration {revision.id} removes what {running.version} may need "
                f"({revision.contracts})",
                f"first deploy a release whose last migration is {revision.down}")


def check_checkout(new: Sequence[Revision], applied: Sequence[Revision]) -> None:
    """Refuse a checkout that is too old for the database, or diverged from it."""
    unknown = revisions.newer_than(applied, {revision.id for revision in new})
    missing = revisions.newer_than(new, {revision.id for revision in applied})
    for revision in unknown:
        if revision.contracts:
            raise Refused(f"this checkout can't run on the current schema: migration {revision.id} "
                          f"breaks it ({revision.contracts})", "deploy a newer commit")
    if unknown and missing:
        raise Refused(f"the database has migration {unknown[0].id}, which this checkout lacks, "
                      f"and lacks {missing[0].id}", "merge both into one line of migrations")


def check_rollback(to: Record, applied: Sequence[Revision] | None) -> tuple[Revision, ...]:
    """Return the migrations newer than a release; refuse those that it can't run on."""
    if applied is None:
        return ()
    if to.schema is None:
        if contracting := [revision for revision in applied if revision.contracts]:
            raise Refused(f"the schema of {to.version} was not recorded, and migration "
                          f"{contracting[-1].id} breaks older code "
                          f"({contracting[-1].contracts})", "choose a newer one: ./fab releases")
        return ()
    ahead = revisions.newer_than(applied, {revision.id for revision in to.schema})
    for revision in ahead:
        if revision.contracts:
            raise Refused(f"{to.version} can't run on the current schema: migration {revision.id} "
                          f"breaks it ({revision.contracts})",
                          "fix it with a new release, or choose a newer one: "
                          "./fab releases")
    return ahead
