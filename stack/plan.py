"""Show what a deploy would do, against what runs now, and do none of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import docker
from invoke.exceptions import Exit

from stack import (
    changes, console, engine, images, lock, pending, preparation, records, restarts, schema)
from stack.definition import Stack
from stack.images import Build
from stack.records import Record
from stack.schema import Revision
from stack.target import Target
from stack.version import Snapshot

DIFFERENT = 2  # the exit code for which --exit-code asks
UNKNOWN = "nobody noted which migrations have run; a deploy runs those that are missing"


@dataclass(frozen=True)
class Wanted:
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


@engine.in_one_line
def plan(sql: bool = False, exit_code: bool = False) -> None:
    """Print what a deploy would do; with `exit_code`, end with 2 unless that is nothing.

    With `sql`, print the SQL of the migrations, too. The lock isn't taken.
    """
    target = Target.reach("./fab plan")
    console.heading("Plan")
    with preparation.snapshot_of(target) as snapshot:
        current = next(iter(records.history(target.client)), None)
        wanted = look(target, snapshot, current)
    found = compare(target.client, wanted, current)
    show(found, wanted, current)
    show_notes(target.client, wanted)
    if sql and wanted.steps:
        show_sql(target, wanted.stack, wanted.steps)
    if exit_code and found.differs:
        raise Exit(code=DIFFERENT)


def look(target: Target, snapshot: Snapshot, current: Record | None) -> Wanted:
    """Check and read what a deploy would, without building anything."""
    version, builds = preparation.prepare(target, snapshot)
    missing = {build.name: build for build in target.store.missing(builds.values())}
    # An image that isn't kept yet has no digest.
    stack = preparation.render(target, snapshot, {
        name: build.tag if name in missing else target.store.reference(build.tag)
        for name, build in builds.items()})
    known = pending.known(records.applied(target.client), current)
    steps = None if known is None else schema.newer_than(preparation.revisions(snapshot), known)
    return Wanted(version.text, [to_do(target, build) for build in missing.values()],
                  [name for name in builds if name not in missing], stack, steps,
                  pending.lines(snapshot.files / preparation.MIGRATIONS, steps or ()))


def to_do(target: Target, build: Build) -> str:
    """Say what is to be done with an image that isn't kept."""
    built = images.image_id(target.client, build.tag)
    return f"{build.name}: {build.tag} {'is built, to be pushed' if built else 'to be built'}"


def compare(client: docker.DockerClient, wanted: Wanted, current: Record | None) -> Plan:
    """Hold what runs against what is wanted."""
    running = records.definitions(client)
    if current is None:
        return Plan(wanted.missing, wanted.migrations, changes.first(wanted.stack, running))
    drifted = changes.by_hand(current, running)
    return Plan(
        wanted.missing, wanted.migrations, changes.between(current.stack, wanted.stack),
        changes.told(current, records.spec_hashes(client), drifted, wanted.stack.services),
        restarts.of(current.stack, wanted.stack, drifted))


def show(found: Plan, wanted: Wanted, current: Record | None) -> None:
    """Print the plan in groups, in the order in which a deploy does it."""
    if current and not found.differs:
        console.say(f"nothing to do: {current.version} runs, unchanged since it was proven")
        return
    console.heading(title(wanted.version, current.version if current else None))
    there = [f"there already: {', '.join(wanted.kept)}"] if wanted.kept else []
    for name, lines in (
            ("Images", [*found.images, *there]),
            ("Migrations", found.migrations),
            ("Changes", found.changes),
            ("Changed by hand, or by a deploy that didn't end; a deploy puts it right",
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


def show_notes(client: docker.DockerClient, wanted: Wanted) -> None:
    """Print what makes the plan less than certain."""
    if wanted.steps is None:
        console.say(UNKNOWN)
    holder = lock.holder(client)
    if holder and not holder.expired:
        console.say(f"{holder} holds the deploy lock: this may change meanwhile")


def show_sql(target: Target, stack: Stack, steps: Sequence[Revision]) -> None:
    """Print what the migrations send to the database."""
    said = pending.sql(target.client, target.machine, stack.services["app"]["image"], steps)
    console.heading("SQL")
    console.block(said)
