"""From a checkout to a proven release: lock, preflight, build, migrate, update, verdict."""

import math
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import requests
from docker.errors import DockerException

from stack import (
    attempts, console, engine, images, lock, logs, migration, preparation, proof, records,
    report, rollout)
from stack.console import step
from stack.definition import Stack
from stack.errors import MigrationFailed, Refused, RestoreFailed
from stack.lock import Lock
from stack.probe import Report
from stack.records import Record
from stack.schema import Revision
from stack.target import Target
from stack.version import Version

# What completes a deploy that was broken off.
AGAIN = "./fab deploy"


def deploy(probe_budget: str = "", as_json: bool = False) -> None:
    """Bring this checkout into service, or leave what serves as it is.

    More failed requests than `probe_budget`, if one is given, fail the deploy.
    """
    with report.printed("deploy", as_json):
        _deploy(read_budget(probe_budget))


@engine.in_one_line
def _deploy(budget: float) -> None:
    target = Target.reach("./fab deploy")
    console.heading("Deploy")
    with lock.hold(target.client) as held, preparation.snapshot_of(target) as snapshot:
        began = time.time()
        release, builds = preparation.prepare(target, snapshot)
        console.fact("version", release.text)
        console.fact("commit", release.commit)
        preparation.build(target, snapshot, builds)
        stack = preparation.render(target, snapshot, preparation.references(target, builds))
        steps = preparation.revisions(snapshot)
        current = next(iter(records.history(target.client)), None)
        console.fact("previous", current.version if current else None)
        if current and proof.is_running(target, current, stack):
            proof.confirm_unchanged(target, current)
        else:
            with attempts.noted(target.client, release.text, release.commit, began):
                update(target, Wanted(stack, release, steps, began, budget), current, held)
    proof.say_where(target, stack)


@engine.in_one_line
def build_images() -> None:
    """Build this checkout's images, as the first half of a deploy does."""
    target = Target.reach("./fab build")
    console.heading("Build")
    with lock.hold(target.client), preparation.snapshot_of(target) as snapshot:
        _, builds = preparation.prepare(target, snapshot)
        preparation.build(target, snapshot, builds)


def read_budget(text: str) -> float:
    """Return how many requests may fail during an update; any number if nothing is said."""
    if not re.fullmatch("[0-9]{0,9}", text):
        raise Refused(f"--probe-budget={text!r}", "it should be a number of requests")
    return int(text) if text else math.inf


@dataclass(frozen=True)
class Wanted:
    """What a deploy brings in, since when, and how many requests it may cost."""

    stack: Stack
    release: Version
    schema: tuple[Revision, ...]
    began: float
    budget: float


def update(target: Target, wanted: Wanted, previous: Record | None, held: Lock) -> None:
    """Migrate, roll the stack out, and restore the previous release if that fails."""
    stack, release = wanted.stack, wanted.release
    before = records.spec_hashes(target.client)
    held.require()
    migrate(target, wanted, first=previous is None or "postgres" not in before)
    proof.require_still(held, AGAIN)
    met = None
    with proof.telling_if_interrupted(f"{AGAIN} completes it, ./fab rollback undoes it"):
        try:
            # A probe tells nothing where nothing served before at the same port.
            if previous and "traefik" in before \
                    and previous.stack.http_port == stack.http_port:
                met = proof.roll_out(target, stack, release.text, wanted.budget)
            else:
                proof.replace(target, stack, release.text)
        except engine.FAILURES as failure:
            proof.require_still(held, AGAIN)
            proof.give_back(target, failure, previous)
    proof.require_still(held, AGAIN)
    remember(target, wanted, met, before)


def remember(target: Target, wanted: Wanted, met: Report | None,
             before: Mapping[str, str]) -> None:
    """Record the release that was just proven, and drop the images that none needs any more.

    Raises RestoreFailed if it can't be recorded: it serves all the same.
    """
    release = wanted.release
    try:
        report_changes(before, records.spec_hashes(target.client))
        records.save(target.client, records.make(
            target.client, version=release.text, commit=release.commit, who=lock.whoami(),
            began=wanted.began, stack=wanted.stack, probe=met, schema=wanted.schema))
    except (DockerException, requests.RequestException) as error:
        raise RestoreFailed(f"{release.text} serves, proven, but could not be recorded "
                            f"({error})", "./fab deploy records it") from error
    # A machine that went away meanwhile is tidied after the next deploy.
    with suppress(*engine.FAILURES):
        tidy(target)


def migrate(target: Target, wanted: Wanted, first: bool) -> None:
    """Run the migration's job; the first time, start the database for it.

    Raises MigrationFailed, also if the engine or the machine gives up meanwhile.
    """
    try:
        records.note_begun(target.client, wanted.schema)
        _migrate(target, wanted, first)
        records.note_applied(target.client, wanted.schema)
    except MigrationFailed:
        raise
    except engine.FAILURES as error:
        raise MigrationFailed(f"the Docker Engine failed during the migration ({error}); "
                              "the running release is untouched", "./fab deploy") from error


def _migrate(target: Target, wanted: Wanted, first: bool) -> None:
    if first:
        with step("postgres") as current:
            current.doing("starting it for the first time")
            start_database(target, wanted.stack.only("postgres"))
            current.changed("started")
    with step("schema") as current:
        current.doing("migrating")
        current.changed(migration.run(target, wanted.stack, wanted.release))


def start_database(target: Target, database: Stack) -> None:
    """Start Postgres before there is anything else; raises MigrationFailed."""
    try:
        rollout.apply(target.cli, database, prune=False)
        rollout.wait(target.client, target.machine, database, target.settings.deploy_timeout,
                     held=0)
    except rollout.NotArrived as failure:
        logs.tell_cause(target, failure)
        raise MigrationFailed(f"the database didn't start: {failure.cause}",
                              "./fab logs postgres") from failure


def report_changes(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Say for each service whether its definition changed."""
    for name in sorted(after):
        with step(name) as current:
            if name not in before:
                current.changed("created")
            elif before[name] != after[name]:
                current.changed("updated")


def tidy(target: Target) -> None:
    """Remove, on every machine that answers, the images that no remembered release needs."""
    needed = {service["image"] for record in records.history(target.client)
              for service in record.stack.services.values()}
    with ThreadPoolExecutor(len(target.fleet.members)) as pool:
        list(pool.map(lambda member: images.tidy(member.machine, target.store.prefix, needed),
                      target.fleet.members))
