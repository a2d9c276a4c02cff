"""From a checkout to a proven release: lock, preflight, build, migrate, update, verdict."""

import time
from dataclasses import dataclass

import docker

from stack import (
    console, definition, engine, facts, images, lock, migration, preflight, records, rollout,
    swarm, version)
from stack.console import step
from stack.definition import Stack
from stack.engine import SOCKET, DockerCli
from stack.errors import MigrationFailed, OperatorError, Refused, RestoreFailed, UpdateFailed
from stack.machine import LocalMachine
from stack.privilege import may_use_docker, require_root
from stack.records import Record
from stack.settings import ROOT, Settings
from stack.version import Snapshot, Version

STACK_FILE = ROOT / "docker-stack.yml"


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
def deploy() -> None:
    """Bring this checkout into service, or leave what serves as it is."""
    target = Target.local("./fab deploy")
    swarm.require_manager(target.client)
    console.heading("Deploy")
    with lock.hold(target.client), version.snapshot(ROOT, target.machine) as snapshot:
        began = time.time()
        release = images.resolve(target.client, snapshot.version())
        stack, builds = prepare(target, snapshot, release)
        build(target, snapshot, builds)
        current = next(iter(records.history(target.client)), None)
        if current and is_running(target, current, stack):
            confirm_unchanged(target, current)
        else:
            update(target, stack, release, current, began)
    say_where(target.settings)


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
        stack = definition.load(STACK_FILE, variables(target, builds))
        if complaint := rollout.check(target.cli, stack):
            raise Refused(f"{STACK_FILE.name}: {complaint}")
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
    verdict(target, current.stack, current.version, held=0)


def update(target: Target, stack: Stack, release: Version, previous: Record | None,
           began: float) -> None:
    """Migrate, roll the stack out, and restore the previous release if that fails."""
    migrate(target, stack, release, first=previous is None)
    before = records.spec_hashes(target.client)
    try:
        roll_out(target, stack, release.text)
    except rollout.NotArrived as failure:
        give_back(target, failure, previous)
    report_changes(before, records.spec_hashes(target.client))
    record = records.make(target.client, version=release.text, commit=release.commit,
                          who=lock.whoami(), began=began, stack=stack)
    records.save(target.client, record)
    images.remove(target.client, unused(target, records.history(target.client)))


def migrate(target: Target, stack: Stack, release: Version, first: bool) -> None:
    """Run the migration's job; the first time, start the database for it."""
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


def roll_out(target: Target, stack: Stack, wanted: str) -> None:
    """Hand the stack to Swarm and see it proven."""
    with step("update") as current:
        current.doing("replacing tasks, one at a time")
        rollout.apply(target.cli, stack, prune=True)
        rollout.wait(target.client, target.cli, stack, target.settings.deploy_timeout)
        current.changed("every task is up to date, healthy and stayed so")
    verdict(target, stack, wanted, held=0)


def verdict(target: Target, stack: Stack, wanted: str, held: float) -> None:
    """See every task running and the version served to visitors."""
    with step("verdict") as current:
        rollout.wait(target.client, target.cli, stack, target.settings.deploy_timeout, held)
        port = int(stack.services["traefik"]["ports"][0]["published"])
        rollout.prove(port, wanted)
        current.found(f"{wanted} runs and is served")


def give_back(target: Target, failure: rollout.NotArrived, previous: Record | None) -> None:
    """Restore the whole previous release and end with the update's failure."""
    console.block(failure.log)
    if previous is None:
        raise RestoreFailed(f"the update failed: {failure.cause}; there is no earlier release to "
                            "go back to", "mend it, then ./fab deploy") from failure
    console.heading(f"Restore {previous.version}, as the update failed: {failure.cause}")
    try:
        roll_out(target, previous.stack, previous.version)
    except OperatorError as error:
        raise RestoreFailed(f"the update failed ({failure.cause}) and so did restoring "
                            f"{previous.version} ({error.cause})",
                            "docker stack ps tally --no-trunc, then ./fab rollback") from failure
    raise UpdateFailed(f"the update failed: {failure.cause}; {previous.version} is restored and "
                       "proven", "mend it, then ./fab deploy") from failure


def report_changes(before: dict[str, str], after: dict[str, str]) -> None:
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
def rollback() -> None:
    """Bring the release before this one back, whole."""
    target = Target.local("./fab rollback")
    swarm.require_manager(target.client)
    with lock.hold(target.client):
        history = records.history(target.client)
        earlier = records.before_current(history)
        if earlier is None:
            raise Refused("there is no earlier release to go back to", "./fab status")
        now = history[0]
        began = time.time()
        console.heading(f"Roll back from {now.version} to {earlier.version}")
        try:
            roll_out(target, earlier.stack, earlier.version)
        except rollout.NotArrived as failure:
            give_back(target, failure, now)
        records.save(target.client, records.make(
            target.client, version=earlier.version, commit=earlier.commit, who=lock.whoami(),
            began=began, stack=earlier.stack))


def say_where(settings: Settings) -> None:
    """Print the address that people open."""
    port = "" if settings.http_port == 80 else f":{settings.http_port}"
    console.say(f"Tally runs at http://localhost{port}")
