"""Show what a deploy would do, against what runs now, and do none of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from invoke.exceptions import Exit

from stack import console
from stack.commands.one_line import in_one_line
from stack.engine.engine import Engine
from stack.images.builds import Build
from stack.images.snapshot import Snapshot
from stack.release import prepare, render
from stack.release.plan import drift, migrations, task_restarts
from stack.release.prepare import Prepared
from stack.release.target import Target
from stack.state import lock, revisions
from stack.state.releases import Record
from stack.state.revisions import Revision
from stack.swarm import services
from stack.swarm.stackfile import Stack

DIFFERENT = 2  # the exit code for which --exit-code asks
UNKNOWN = "applied migrations are unknown; a deploy runs those that are missing"


@dataclass(frozen=True)
class PlannedRelease:
    """What a deploy would bring, after the checks with which it begins.

    `missing` says for each image that isn't kept yet what is to be done with it, `kept`
    are the others. `steps` are the migrations to run, None if nobody knows, and
    `migrations` what they say of themselves.
    """

    version: str
    missing: Sequence[str]
    kept: Sequence[str]
    stack: Stack
    steps: Sequence[Revision] | None
    migrations: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """What a deploy would do, a line each; all empty if it would do nothing."""

    images: Sequence[str]
    migrations: Sequence[str]
    changes: Sequence[str]
    by_hand: Sequence[str] = ()
    restarts: Sequence[str] = ()

    @property
    def differs(self) -> bool:
        return any((self.images, self.migrations, self.changes, self.by_hand, self.restarts))


@in_one_line
def plan(sql: bool = False, exit_code: bool = False) -> None:
    """Print what a deploy would do; with `exit_code`, end with 2 unless that is nothing.

    With `sql`, print the SQL of the migrations, too. The lock isn't taken.
    """
    target = Target.reach("./fab plan")
    console.heading("Plan")
    with prepare.snapshot_of(target) as snapshot:
        prepared = prepare.prepare(target, snapshot)
        wanted, current = look(target, snapshot, prepared), prepared.found.latest
    found = compare(target.engine, wanted, current)
    show(found, wanted, current)
    show_notes(target.engine, wanted)
    if sql and wanted.steps:
        show_sql(target, wanted.stack, wanted.steps)
    if exit_code and found.differs:
        raise Exit(code=DIFFERENT)


def look(target: Target, snapshot: Snapshot, prepared: Prepared) -> PlannedRelease:
    """Read what a deploy would bring, without building anything."""
    found, builds = prepared.found, prepared.builds
    missing = {build.name: build for build in target.store.missing(builds.values())}
    # An image that isn't kept yet has no digest.
    stack = render.render(target, snapshot, found, {
        name: build.tag if name in missing else target.store.reference(build.tag)
        for name, build in builds.items()})
    known = migrations.known(found.applied, found.latest)
    steps = None if known is None else revisions.newer_than(prepared.revisions, known)
    return PlannedRelease(
        prepared.release.text, [to_do(target, build) for build in missing.values()],
        [name for name in builds if name not in missing], stack, steps,
        migrations.lines(snapshot.files / prepare.MIGRATIONS, steps or ()))


def to_do(target: Target, build: Build) -> str:
    """Say what is to be done with an image that isn't kept."""
    built = target.engine.images.id(build.tag)
    return f"{build.name}: {build.tag} {'is built, to be pushed' if built else 'to be built'}"


def compare(engine: Engine, wanted: PlannedRelease, current: Record | None) -> Plan:
    """Hold what runs against what is wanted."""
    running = services.definitions(engine)
    if current is None:
        return Plan(wanted.missing, wanted.migrations, drift.first(wanted.stack, running))
    drifted = drift.by_hand(current, running)
    return Plan(
        wanted.missing, wanted.migrations, drift.between(current.stack, wanted.stack),
        drift.manual_changes(current, services.hashes_of(running), drifted, wanted.stack.services),
        task_restarts.of(current.stack, wanted.stack, drifted))


def show(found: Plan, wanted: PlannedRelease, current: Record | None) -> None:
    """Print the plan in groups, in the order in which a deploy does it."""
    if current and not found.differs:
        console.say(f"nothing to do: {current.version} is running, unchanged since it was verified")
        return
    console.heading(title(wanted.version, current.version if current else None))
    there = [f"there already: {', '.join(wanted.kept)}"] if wanted.kept else []
    for name, lines in (
            ("Images", [*found.images, *there]),
            ("Migrations", found.migrations),
            ("Changes", found.changes),
            ("Changed by hand, or by a deploy that didn't finish; a deploy corrects it",
             found.by_hand),
            ("Tasks that are replaced", found.restarts)):
        show_group(name, lines)


def title(wanted: str, running: str | None) -> str:
    """Return the way from one version to another, which may be the same."""
    if running is None:
        return f"{wanted}, the first release"
    return f"{running}, again" if running == wanted else f"{running} -> {wanted}"


def show_group(name: str, lines: Sequence[str]) -> None:
    if lines:
        console.heading(name)
    for line in lines:
        console.say(f"  {line}")


def show_notes(engine: Engine, wanted: PlannedRelease) -> None:
    """Print what makes the plan less than certain."""
    if wanted.steps is None:
        console.say(UNKNOWN)
    holder = lock.holder(engine)
    if holder and not holder.expired:
        console.say(f"{holder.who} has held the deploy lock since {holder.began}: "
                    "this plan may change")


def show_sql(target: Target, stack: Stack, steps: Sequence[Revision]) -> None:
    """Print what the migrations send to the database."""
    said = migrations.sql(target.engine, target.machine, stack.services["app"]["image"], steps)
    console.heading("SQL")
    console.block(said)
