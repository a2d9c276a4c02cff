"""From a checkout to a proven release: lock, preflight, build, migrate, update, verdict."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

import docker
import requests
from docker.errors import DockerException

from stack import (
    console, definition, engine, facts, images, lock, migration, preflight, probe, records, rollout,
    swarm, version)
from stack.console import step
from stack.definition import Stack
from stack.engine import SOCKET, DockerCli
from stack.errors import MigrationFailed, OperatorError, Refused, RestoreFailed, UpdateFailed
from stack.lock import Lock
from stack.machine import LocalMachine
from stack.privilege import may_use_docker, require_root
from stack.probe import Report
from stack.records import Record
from stack.settings import ROOT, Settings
from stack.version import Snapshot, Version

STACK_FILE = "docker-stack.yml"


@dataclass(frozen=True)
class Target:
    """Where a release goes: the engine, twice, and the operator's choices."""

    machine: LocalMachine
    client: docker.DockerClient
    cli: DockerCli
    settings: Settings

    @classmethod
    def local(cls, why: str) -> "Target":
        """Reach this machine's engine, as root if it lets nobody else."""
        if SOCKET.exists() and not may_use_docker(SOCKET):
            require_root(why)
        machine = LocalMachine()
        return cls(machine, engine.connect(), DockerCli(machine), Settings.load())


@engine.in_one_line
def deploy(probe_budget: str = "") -> None:
    """Bring this checkout into service, or leave what serves as it is.

    More failed requests than `probe_budget`, if one is given, fail the deploy.
    """
    budget = read_budget(probe_budget)
    target = Target.local("./fab deploy")
    swarm.require_manager(target.client)
    console.heading("Deploy")
    with lock.hold(target.client) as held, version.snapshot(ROOT, target.machine) as snapshot:
        began = time.time()
        release = images.resolve(target.client, snapshot.version())
        stack, builds = prepare(target, snapshot, release)
        build(target, snapshot, builds)
        current = next(iter(records.history(target.client)), None)
        if current and is_running(target, current, stack):
            confirm_unchanged(target, current)
        else:
            update(target, stack, release, current, began, budget, held)
    say_where(stack)


@engine.in_one_line
def build_images() -> None:
    """Build this checkout's images, as the first half of a deploy does."""
    target = Target.local("./fab build")
    swarm.require_manager(target.client)
    console.heading("Build")
    with lock.hold(target.client), version.snapshot(ROOT, target.machine) as snapshot:
        release = images.resolve(target.client, snapshot.version())
        _, builds = prepare(target, snapshot, release)
        build(target, snapshot, builds)


def prepare(target: Target, snapshot: Snapshot,
            release: Version) -> tuple[Stack, dict[str, images.Build]]:
    """Check everything that can be checked before the first change."""
    with step("preflight") as current:
        base = images.image_id(target.client, images.BASE)
        check_bootstrapped(target, base)
        preflight.check_room(target.machine, preflight.LEAST_DISK)
        preflight.check_ports(target.machine, target.settings)
        swarm.require_labels(target.client)
        builds = images.plan(snapshot, release, base)
        stack = definition.load(snapshot.files / STACK_FILE, variables(target, builds))
        if complaint := rollout.check(target.cli, stack):
            raise Refused(f"{STACK_FILE}: {complaint}")
        migration.task_template(target.client, stack)
        current.found(f"version {release.text}, all checks passed")
    return stack, builds


def check_bootstrapped(target: Target, base: str) -> None:
    """Refuse a machine without what bootstrap makes, or whose data has vanished."""
    if not base:
        raise Refused("the base image is missing", "./fab bootstrap makes it")
    if swarm.has_volume(target.client):
        return
    if records.history(target.client):
        raise Refused(f"the volume {swarm.VOLUME} is gone, and with it all visits",
                      "bring it back, or begin anew with ./fab destroy --data, "
                      "then ./fab bootstrap deploy")
    raise Refused("the data volume is missing", "./fab bootstrap makes it")


def variables(target: Target, builds: dict[str, images.Build]) -> dict[str, str | int]:
    """Return the value of each variable in docker-stack.yml."""
    secrets = swarm.require_secrets(target.client)
    settings = target.settings
    return {
        "APP_IMAGE": builds["app"].tag,
        "POSTGRES_IMAGE": builds["postgres"].tag,
        "TRAEFIK_IMAGE": builds["traefik"].tag,
        "SOCKET_PROXY_IMAGE": builds["socket-proxy"].tag,
        "APP_PASSWORD": secrets["app-password"],
        "OWNER_PASSWORD": secrets["owner-password"],
        "VISITOR_KEY": secrets["visitor-key"],
        "HTTP_PORT": settings.http_port,
        "HTTPS_PORT": settings.https_port,
        "APP_REPLICAS": settings.app_replicas,
        "USER_NAME": settings.user_name,
        "USER_URL": settings.user_url,
        "DOCKER_GID": str(facts.socket_group(SOCKET)),
    }


def build(target: Target, snapshot: Snapshot, builds: dict[str, images.Build]) -> None:
    """Build whichever images aren't there yet."""
    with step("images") as current:
        if missing := images.missing(target.client, builds.values()):
            names = ", ".join(each.name for each in missing)
            current.doing(f"building {names}, the first time some minutes")
            images.build(target.cli, snapshot, missing)
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


def update(target: Target, stack: Stack, release: Version, previous: Record | None,
           began: float, budget: float, held: Lock) -> None:
    """Migrate, roll the stack out, and restore the previous release if that fails."""
    before = records.spec_hashes(target.client)
    held.require()
    migrate(target, stack, release, first=previous is None or "postgres" not in before)
    held.require()
    report = None
    with telling_if_interrupted():
        try:
            # A probe tells nothing where nothing served before at the same port.
            if previous and "traefik" in before \
                    and previous.stack.http_port == stack.http_port:
                report = roll_out(target, stack, release.text, budget)
            else:
                replace(target, stack, release.text)
        except rollout.NotArrived as failure:
            held.require()
            give_back(target, failure, previous)
    held.require()
    remember(target, stack, release, began, report, before)


def remember(target: Target, stack: Stack, release: Version, began: float,
             report: Report | None, before: Mapping[str, str]) -> None:
    """Record the release that was just proven, and drop the images that none needs any more.

    Raises RestoreFailed if it can't be recorded: it serves all the same.
    """
    try:
        report_changes(before, records.spec_hashes(target.client))
        records.save(target.client, records.make(
            target.client, version=release.text, commit=release.commit, who=lock.whoami(),
            began=began, stack=stack, probe=report))
    except (DockerException, requests.RequestException) as error:
        raise RestoreFailed(f"{release.text} serves, proven, but could not be recorded "
                            f"({error})", "./fab deploy records it") from error
    with suppress(DockerException, requests.RequestException):
        images.remove(target.client, unused(target, records.history(target.client)))


def migrate(target: Target, stack: Stack, release: Version, first: bool) -> None:
    """Run the migration's job; the first time, start the database for it.

    Raises MigrationFailed, also if the engine gives up meanwhile.
    """
    try:
        _migrate(target, stack, release, first)
    except (DockerException, requests.RequestException) as error:
        raise MigrationFailed(f"the Docker Engine failed during the migration ({error}); "
                              "the running release is untouched", "./fab deploy") from error


def _migrate(target: Target, stack: Stack, release: Version, first: bool) -> None:
    if first:
        with step("postgres") as current:
            current.doing("starting it for the first time")
            start_database(target, stack.only("postgres"))
            current.changed("started")
    with step("schema") as current:
        current.doing("migrating")
        current.changed(migration.run(target.client, target.cli, stack, release,
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
    with probe.watching(stack.http_port) as watch:
        replace(target, stack, wanted)
    report = watch.report()
    with step("probe") as current:
        current.found(str(report))
    if report.failures > budget:
        raise rollout.NotArrived(f"{report.failures} requests failed meanwhile, "
                                 f"the budget is {budget:.0f}", [])
    return report


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
        rollout.prove(stack.http_port, wanted)
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


def unused(target: Target, history: list[Record]) -> list[str]:
    """Return the images that no remembered release needs."""
    needed = {service["image"] for record in history
              for service in record.stack.services.values()}
    return [tag for tag in images.tally_images(target.client) if tag not in needed]


@engine.in_one_line
def rollback(to: str = "") -> None:
    """Bring the release before this one back, whole, or the one of the version `to`."""
    target = Target.local("./fab rollback")
    swarm.require_manager(target.client)
    with lock.hold(target.client) as held:
        began = time.time()
        history = records.history(target.client)
        earlier = records.named(history, to) if to else \
            records.to_restore(history, records.spec_hashes(target.client))
        if earlier is None:
            raise Refused(f"no release {to} is remembered" if to else
                          "there is no earlier release to go back to", "./fab releases")
        check_restorable(target, earlier)
        console.heading(f"Roll back to {earlier.version}")
        with telling_if_interrupted():
            try:
                report = roll_out(target, earlier.stack, earlier.version)
            except rollout.NotArrived as failure:
                held.require()
                give_back(target, failure, history[0])
        held.require()
        records.save(target.client, records.make(
            target.client, version=earlier.version, commit=earlier.commit, who=lock.whoami(),
            began=began, stack=earlier.stack, probe=report))
    say_where(earlier.stack)


def check_restorable(target: Target, release: Record) -> None:
    """Refuse to go back to a release of which an image or a secret is gone."""
    for service in release.stack.services.values():
        if not images.image_id(target.client, service["image"]):
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


def say_where(stack: Stack) -> None:
    """Print the address that people open."""
    port = "" if stack.http_port == 80 else f":{stack.http_port}"
    console.say(f"Tally runs at http://localhost{port}")
