"""Keep code and schema together: what a release can bear, and what it can't go back over."""

from collections.abc import Sequence

from stack import schema
from stack.errors import Refused
from stack.records import Record
from stack.schema import Revision


def check_deploy(new: Sequence[Revision], running: Record | None,
                 applied: Sequence[Revision] | None) -> None:
    """Refuse a schema that the checkout, or the running release, can't bear.

    The running release serves on the new schema until the update is through, and again if
    that fails. So the step before a contracting one has to be in it already.
    """
    check_checkout(new, applied or ())
    if running is None or running.schema is None or applied is None:
        return
    known = {revision.id for revision in running.schema}
    for revision in schema.newer_than(new, {done.id for done in applied}):
        if revision.contracts and revision.down not in known:
            raise Refused(
                f"migration {revision.id} takes away what {running.version} may need "
                f"({revision.contracts})",
                f"first deploy a release whose last migration is {revision.down}")


def check_checkout(new: Sequence[Revision], applied: Sequence[Revision]) -> None:
    """Refuse a checkout that is too old for the database, or went another way."""
    unknown = schema.newer_than(applied, {revision.id for revision in new})
    missing = schema.newer_than(new, {revision.id for revision in applied})
    for revision in unknown:
        if revision.contracts:
            raise Refused(f"this checkout can't run on today's schema: migration {revision.id} "
                          f"breaks it ({revision.contracts})", "deploy a newer commit")
    if unknown and missing:
        raise Refused(f"the database has migration {unknown[0].id}, which this checkout lacks, "
                      f"and lacks {missing[0].id}", "bring both into one line of migrations")


def check_rollback(to: Record, applied: Sequence[Revision] | None) -> tuple[Revision, ...]:
    """Return the steps that the schema is ahead of a release; refuse what it can't bear."""
    if applied is None:
        return ()
    if to.schema is None:
        if contracting := [revision for revision in applied if revision.contracts]:
            raise Refused(f"nobody noted which schema {to.version} knows, and migration "
                          f"{contracting[-1].id} breaks older code "
                          f"({contracting[-1].contracts})", "choose a newer one: ./fab releases")
        return ()
    ahead = schema.newer_than(applied, {revision.id for revision in to.schema})
    for revision in ahead:
        if revision.contracts:
            raise Refused(f"{to.version} can't run on today's schema: migration {revision.id} "
                          f"breaks it ({revision.contracts})",
                          "mend it forward with a new release, or choose a newer one: "
                          "./fab releases")
    return ahead
