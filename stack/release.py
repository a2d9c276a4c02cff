"""From a checkout to a proven release: lock, preflight, build, migrate, update, verdict."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import NoReturn

import requests
from docker.errors import DockerException

from stack import (
    clock, compatibility, console, definition, engine, facts, host_keys, images, lock, migration,
    placement, preflight, probe, records, report, rollout, schema, swarm, version)
from stack.console import Step, step
from stack.definition import Stack
from stack.engine import SOCKET
from stack.errors import (
    MigrationFailed, OperatorError, Refused, RestoreFailed, UpdateFailed, raise_all)
from stack.fleet import Member
from stack.lock import Lock
from stack.machine import LocalMachine
from stack.probe import Report
from stack.records import Record
from stack.schema import Revision
from stack.settings import DEFAULT_REPLICAS, ROOT, inventory_path
from stack.target import Target
from stack.version import Snapshot, Version

STACK_FILE = "docker-stack.yml"
MIGRATIONS = "migrations/versions"


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
    with lock.hold(target.client) as held, snapshot_of(target) as snapshot:
        began = time.time()
        release, builds = prepare(target, snapshot)
        console.fact("version", release.text)
        console.fact("commit", release.commit)
        build(target, snapshot, builds)
        stack = render(target, snapshot, references(target, builds))
        steps = revisions(snapshot)
        current = next(iter(records.history(target.client)), None)
        console.fact("previous", current.version if current else None)
        if current and is_running(target, current, stack):
            confirm_unchanged(target, current)
        else:
            update(target, Wanted(stack, release, steps, began, budget), current, held)
    say_where(target, stack)


@engine.in_one_line
def build_images() -> None:
    """Build this checkout's images, as the first half of a deploy does."""
    target = Target.reach("./fab build")
    console.heading("Build")
    with lock.hold(target.client), snapshot_of(target) as snapshot:
        _, builds = prepare(target, snapshot)
        build(target, snapshot, builds)


def snapshot_of(target: Target) -> AbstractContextManager[Snapshot]:
    """Take the checkout as it is; the inventory isn't part of what is released."""
    path = inventory_path()
    apart = [path, path.parent / host_keys.FILE] if path else []
    return version.snapshot(ROOT, LocalMachine(), apart)


def prepare(target: Target, snapshot: Snapshot) -> tuple[Version, dict[str, images.Build]]:
    """Check everything that can be checked before the first change."""
    if not target.fleet.local:
        check_machines(target)
    with step("preflight") as current:
        base = images.image_id(target.client, images.BASE)
        check_bootstrapped(target, base)
        target.store.check()
        if target.fleet.local:
            preflight.check_room(target.machine, preflight.LEAST_DISK)
            preflight.check_ports(target.machine, target.settings)
        swarm.require_labels(target.client)
        release = images.resolve(target.client, snapshot.version(), target.store.prefix)
        planned = images.plan(snapshot, release, base, target.store.prefix)
        builds = {name: each for name, each in planned.items() if name not in chosen(target)}
        stack = render(target, snapshot, {name: each.tag for name, each in builds.items()})
        if complaint := rollout.check(target.cli, stack):
            raise Refused(f"{STACK_FILE}: {complaint}")
        migration.task_template(target.client, stack)
        check_placement(target, stack)
        compatibility.check_deploy(
            revisions(snapshot), next(iter(records.history(target.client)), None),
            records.applied(target.client))
        current.found(f"version {release.text}, all checks passed")
    return release, builds


def revisions(snapshot: Snapshot) -> tuple[Revision, ...]:
    """Return the steps of the schema that a tree knows."""
    return schema.read(snapshot.files / MIGRATIONS)


def check_placement(target: Target, stack: Stack, migrates: bool = True) -> None:
    """Refuse a stack of which Swarm could never place some task."""
    raise_all([Refused(f"{STACK_FILE}: {line}", "./fab status shows the nodes")
               for line in placement.complaints(stack, target.client.api.nodes(),
                                                placement.find_running(target.client),
                                                migrates=migrates)])


def check_machines(target: Target) -> None:
    """See that each machine that answers has room, free ports and the right time."""
    def check(member: Member, current: Step) -> float:
        preflight.check_room(member.machine, preflight.LEAST_DISK)
        if member.node.labels.get("edge") == "true":
            preflight.check_ports(member.machine, target.settings)
        return clock.offset(member.machine)
    offsets = target.fleet.each("machines", check)
    raise_all([Refused(line) for line in clock.complaints(
        dict(zip((member.name for member in target.fleet.members), offsets)))])


def check_bootstrapped(target: Target, base: str) -> None:
    """Refuse a Swarm without what bootstrap makes, or whose data has vanished."""
    if not base:
        raise Refused(f"the base image is missing on {target.machine.name}",
                      "./fab bootstrap makes it")
    holder = target.holder("postgres")
    if holder is None or swarm.has_volume(holder.machine):
        return
    if records.history(target.client):
        raise Refused(f"the volume {swarm.VOLUME} is gone, and with it all visits",
                      "bring it back, or begin anew with ./fab destroy --data, "
                      "then ./fab bootstrap deploy")
    raise Refused("the data volume is missing", "./fab bootstrap makes it")


def render(target: Target, snapshot: Snapshot, names: Mapping[str, str]) -> Stack:
    """Return the stack with every variable filled in; `names` are the services' images."""
    return definition.load(snapshot.files / STACK_FILE, variables(target, names))


def references(target: Target, builds: Mapping[str, images.Build]) -> dict[str, str]:
    """Return the name by which each service runs its image."""
    return {name: target.store.reference(each.tag) for name, each in builds.items()}


def variables(target: Target, names: Mapping[str, str]) -> dict[str, str | int]:
    """Return the value of each variable in docker-stack.yml."""
    secrets = swarm.require_secrets(target.client)
    settings = target.settings
    return {
        **{f"{name.upper().replace('-', '_')}_IMAGE": image
           for name, image in {**names, **chosen(target)}.items()},
        "APP_PASSWORD": secrets["app-password"],
        "OWNER_PASSWORD": secrets["owner-password"],
        "VISITOR_KEY": secrets["visitor-key"],
        "HTTP_PORT": settings.http_port,
        "HTTPS_PORT": settings.https_port,
        "APP_REPLICAS": settings.app_replicas or running_replicas(target),
        "USER_NAME": settings.user_name,
        "USER_URL": settings.user_url,
        "DOCKER_GID": str(facts.socket_group(target.machine, SOCKET)),
    }


def chosen(target: Target) -> Mapping[str, str]:
    """Return the images that the inventory names instead of what is built here."""
    return target.fleet.inventory.images if target.fleet.inventory else {}


def running_replicas(target: Target) -> int:
    """Return how many tasks the application has, as scale left it, or how many it gets at first."""
    for record in records.history(target.client)[:1]:
        return int(record.stack.services["app"]["deploy"]["replicas"])
    return DEFAULT_REPLICAS


def build(target: Target, snapshot: Snapshot, builds: Mapping[str, images.Build]) -> None:
    """Build whichever images aren't kept yet."""
    with step("images") as current:
        if missing := target.store.missing(builds.values()):
            names = ", ".join(each.name for each in missing)
            current.doing(f"building {names}, the first time some minutes")
            if unbuilt := [each for each in missing
                           if not images.image_id(target.client, each.tag)]:
                with target.machine.holding(snapshot.files) as files:
                    images.build(target.cli, files, unbuilt)
            target.store.keep(missing)
            current.changed(f"built {names}")


def is_running(target: Target, current: Record, stack: Stack) -> bool:
    """Tell whether Swarm holds exactly this stack, unchanged since it was proven."""
    return current.content == stack.content \
        and records.spec_hashes(target.client) == current.specs


def confirm_unchanged(target: Target, current: Record) -> None:
    """Prove that what ran still runs; nothing is touched."""
    with step("schema"):
        pass
    for name in current.stack.services:
        with step(name):
            pass
    try:
        verdict(target, current.stack, current.version)
    except rollout.NotArrived as failure:
        console.block(failure.log)
        raise Refused(f"nothing is to be changed, but not all is well: {failure.cause}",
                      "./fab status") from failure


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
    held.require()
    met = None
    with telling_if_interrupted():
        try:
            # A probe tells nothing where nothing served before at the same port.
            if previous and "traefik" in before \
                    and previous.stack.http_port == stack.http_port:
                met = roll_out(target, stack, release.text, wanted.budget)
            else:
                replace(target, stack, release.text)
        except rollout.NotArrived as failure:
            held.require()
            give_back(target, failure, previous)
    held.require()
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
    with suppress(DockerException, requests.RequestException):
        tidy(target)


def migrate(target: Target, wanted: Wanted, first: bool) -> None:
    """Run the migration's job; the first time, start the database for it.

    Raises MigrationFailed, also if the engine gives up meanwhile.
    """
    try:
        _migrate(target, wanted, first)
        records.note_applied(target.client, wanted.schema)
    except (DockerException, requests.RequestException) as error:
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
        current.changed(migration.run(target.client, target.cli, wanted.stack, wanted.release,
                                      target.settings.deploy_timeout))


def start_database(target: Target, database: Stack) -> None:
    """Start Postgres before there is anything else; raises MigrationFailed."""
    try:
        rollout.apply(target.cli, database, prune=False)
        rollout.wait(target.client, target.cli, database, target.settings.deploy_timeout, held=0)
    except rollout.NotArrived as failure:
        console.block(failure.log)
        raise MigrationFailed(f"the database didn't start: {failure.cause}",
                              "./fab logs --service postgres") from failure


def roll_out(target: Target, stack: Stack, wanted: str, budget: float = math.inf) -> Report:
    """Replace what serves, while the probe looks on as a visitor; return what it met.

    Raises NotArrived also if more requests failed than the budget allows.
    """
    with probe.watching(target.edges(), stack.http_port) as watch:
        replace(target, stack, wanted)
    met = watch.report()
    console.fact("probe", asdict(met))
    with step("probe") as current:
        current.found(str(met))
    if met.failures > budget:
        raise rollout.NotArrived(f"{met.failures} requests failed meanwhile, "
                                 f"the budget is {budget:.0f}", [])
    return met


def replace(target: Target, stack: Stack, wanted: str) -> None:
    """Hand the stack to Swarm and see it proven."""
    with step("update") as current:
        current.doing("replacing tasks, one at a time")
        rollout.apply(target.cli, stack, prune=True)
        rollout.wait(target.client, target.cli, stack, target.settings.deploy_timeout)
        current.changed("every task is up to date, healthy and stayed so")
    verdict(target, stack, wanted)


def verdict(target: Target, stack: Stack, wanted: str) -> None:
    """See every task running and the version served to visitors."""
    with step("verdict") as current:
        rollout.wait(target.client, target.cli, stack, target.settings.deploy_timeout, held=0)
        rollout.prove(target.edges, stack.http_port, wanted)
        current.found(f"{wanted} runs and is served")


def give_back(target: Target, failure: rollout.NotArrived, previous: Record | None) -> NoReturn:
    """Restore the whole previous release and end with the update's failure."""
    console.block(failure.log)
    if previous is None:
        raise RestoreFailed(f"the update failed: {failure.cause}; there is no earlier release to "
                            "go back to", "mend it, then ./fab deploy") from failure
    console.heading(f"Restore {previous.version}, as the update failed: {failure.cause}")
    try:
        check_restorable(target, previous)
        roll_out(target, previous.stack, previous.version)
    except (OperatorError, DockerException, requests.RequestException) as error:
        raise RestoreFailed(f"the update failed ({failure.cause}) and so did restoring "
                            f"{previous.version} ({error})",
                            "docker stack ps tally --no-trunc, then ./fab rollback") from failure
    raise UpdateFailed(f"the update failed: {failure.cause}; {previous.version} is restored and "
                       "proven", "mend it, then ./fab deploy") from failure


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


def rollback(to: str = "", as_json: bool = False) -> None:
    """Bring the release before this one back, whole, or the one of the version `to`."""
    with report.printed("rollback", as_json):
        _rollback(to)


@engine.in_one_line
def _rollback(to: str) -> None:
    target = Target.reach("./fab rollback")
    with lock.hold(target.client) as held:
        began, history = time.time(), records.history(target.client)
        earlier = records.named(history, to) if to else \
            records.to_restore(history, records.spec_hashes(target.client))
        if earlier is None:
            raise Refused(f"no release {to} is remembered" if to else
                          "there is no earlier release to go back to", "./fab releases")
        console.fact("version", earlier.version)
        console.fact("commit", earlier.commit)
        console.fact("previous", history[0].version)
        check_restorable(target, earlier)
        ahead = compatibility.check_rollback(earlier, records.applied(target.client))
        console.heading(f"Roll back to {earlier.version}")
        if ahead:
            console.say(f"  note           the schema stays {len(ahead)} steps ahead of it, at "
                        f"{ahead[-1].id}; none of them is marked as breaking older code")
        bring_in(target, earlier.stack, earlier, began, held)


def bring_in(target: Target, stack: Stack, release: Record, began: float, held: Lock) -> None:
    """Roll out what was built before, and record it; give the last release back if that fails."""
    last = records.history(target.client)[0]
    check_placement(target, stack, migrates=False)
    with telling_if_interrupted():
        try:
            met = roll_out(target, stack, release.version)
        except rollout.NotArrived as failure:
            held.require()
            give_back(target, failure, last)
    held.require()
    records.save(target.client, records.make(
        target.client, version=release.version, commit=release.commit, who=lock.whoami(),
        began=began, stack=stack, probe=met, schema=release.schema))
    say_where(target, stack)


def check_restorable(target: Target, release: Record) -> None:
    """Refuse to go back to a release of which an image or a secret is gone."""
    for service in release.stack.services.values():
        ours = service["image"].startswith(f"{target.store.prefix}/")
        if ours and not target.store.has(service["image"]):
            raise Refused(f"the image {service['image']} of {release.version} is gone",
                          f"git checkout {release.commit[:12]} && ./fab deploy")
    known = {secret.name for secret in target.client.secrets.list()}
    for secret in release.stack.content["secrets"].values():
        if secret["name"] not in known:
            raise Refused(f"the secret {secret['name']} of {release.version} is gone",
                          f"git checkout {release.commit[:12]} && ./fab deploy")


@contextmanager
def telling_if_interrupted() -> Iterator[None]:
    """Say what an interruption leaves: Swarm goes on with what it was told."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as interruption:
        console.say("interrupted in the middle of the update: "
                    "./fab deploy completes it, ./fab rollback undoes it")
        raise interruption if isinstance(interruption, SystemExit) else SystemExit(130)


def say_where(target: Target, stack: Stack) -> None:
    """Print the addresses that people open."""
    port = "" if stack.http_port == 80 else f":{stack.http_port}"
    hosts = ["localhost"] if target.fleet.local else target.edges()
    console.say(f"Tally runs at {' '.join(f'http://{host}{port}' for host in hosts)}")
