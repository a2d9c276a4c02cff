"""From a checkout to a proven release: lock, preflight, build, migrate, update, verdict."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from stack.errors import MigrationFailed, OperatorError
from stack.images import builds
from stack.images.version import Version
from stack.progress import step
from stack.release import interruption, migrate, replace, restore, rollout
from stack.release.failure import show_cause
from stack.release.found import Running
from stack.release.target import Target
from stack.state import lock, releases, schema
from stack.state.failed_changes import Change
from stack.state.lock import Lock
from stack.state.revisions import Revision
from stack.swarm import services
from stack.swarm.stackfile import Stack

# The command that completes an interrupted deploy.
AGAIN = "./fab deploy"


@dataclass(frozen=True)
class Wanted:
    """What to deploy, and how many requests may fail."""

    stack: Stack
    release: Version
    schema: tuple[Revision, ...]
    budget: float


def update(target: Target, wanted: Wanted, running: Running, change: Change, held: Lock) -> None:
    """Migrate, roll the stack out, and restore the previous release if that fails."""
    stack, release, previous = wanted.stack, wanted.release, running.release
    held.require()
    migrate_schema(target, wanted, first=previous is None or "postgres" not in running.specs)
    interruption.require_still(held, AGAIN)
    with interruption.reporting_interruption(f"{AGAIN} completes it, ./fab rollback undoes it"):
        try:
            # A probe is of no use unless the site already ran on the same port.
            if previous and "traefik" in running.specs \
                    and previous.stack.http_port == stack.http_port:
                replace.roll_out(target, stack, release.text, change.keep_probe,
                                 wanted.budget)
            else:
                replace.replace(target, stack, release.text)
        except OperatorError as failure:
            interruption.require_still(held, AGAIN)
            restore.restore_previous(target, failure, previous)
    interruption.require_still(held, AGAIN)
    remember(target, wanted, change, running.specs)


def remember(target: Target, wanted: Wanted, change: Change,
             before: Mapping[str, str]) -> None:
    """Record the proven release, and remove images that no release needs.

    Raises RestoreFailed if the release can't be recorded; it keeps running.
    """
    release = wanted.release
    with interruption.recording(release.text, "./fab deploy records it"):
        report_changes(before, services.spec_hashes(target.engine))
        releases.save(target.engine, releases.make(
            target.engine, version=release.text, commit=release.commit, who=lock.whoami(),
            began=change.began, stack=wanted.stack, probe=change.probe,
            schema=wanted.schema))
    # A machine that is gone by now is cleaned up after the next deploy.
    with suppress(OperatorError):
        tidy(target)


def migrate_schema(target: Target, wanted: Wanted, first: bool) -> None:
    """Run the migration job; the first time, start the database first.

    Raises MigrationFailed, also if the engine or the machine fails.
    """
    try:
        schema.note_begun(target.engine, wanted.schema)
        _migrate(target, wanted, first)
        schema.note_applied(target.engine, wanted.schema)
    except MigrationFailed:
        raise
    except OperatorError as error:
        raise MigrationFailed(f"the migration was interrupted ({error}); "
                              "the running release is untouched", "./fab deploy") from error


def _migrate(target: Target, wanted: Wanted, first: bool) -> None:
    if first:
        with step("postgres") as current:
            current.doing("starting it for the first time")
            start_database(target, wanted.stack.only("postgres"))
            current.changed("started")
    with step("schema") as current:
        current.doing("migrating")
        current.changed(migrate.run(target, wanted.stack, wanted.release))


def start_database(target: Target, database: Stack) -> None:
    """Start Postgres before anything else; raises MigrationFailed."""
    try:
        rollout.apply(target.cli, database, prune=False)
        rollout.wait(target.engine, target.machine, database, target.settings.deploy_timeout,
                     held=0)
    except rollout.NotArrived as failure:
        show_cause(target, failure)
        raise MigrationFailed(f"the database didn't start: {failure.cause}",
                              "./fab logs postgres") from failure


def report_changes(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Print whether each service's definition changed."""
    for name in sorted(after):
        with step(name) as current:
            if name not in before:
                current.changed("created")
            elif before[name] != after[name]:
                current.changed("updated")


def tidy(target: Target) -> None:
    """Remove, on every machine that answers, the images that no remembered release needs."""
    needed = {service["image"] for record in releases.history(target.engine)
              for service in record.stack.services.values()}
    with ThreadPoolExecutor(len(target.fleet.members)) as pool:
        list(pool.map(lambda member: builds.tidy(member.machine, target.store.prefix, needed),
                      target.fleet.members))
