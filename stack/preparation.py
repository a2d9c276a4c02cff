"""Check a checkout against the Swarm, build its images and render its stack."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager

from stack import (
    clock, compatibility, definition, facts, host_keys, images, migration, placement, preflight,
    records, rollout, schema, swarm, version)
from stack.console import Step, step
from stack.definition import Stack
from stack.engine import SOCKET
from stack.errors import Refused, raise_all
from stack.fleet import Member
from stack.machine import LocalMachine
from stack.schema import Revision
from stack.settings import DEFAULT_REPLICAS, ROOT, inventory_path
from stack.target import Target
from stack.version import Snapshot, Version

STACK_FILE = "docker-stack.yml"
MIGRATIONS = "migrations/versions"


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
        wanted = snapshot.version()
        # One that can't be found refuses the deploy before any image is fetched.
        others = target.chosen
        # The registry may have this number from another commit, built elsewhere.
        target.store.fetch(f"{target.store.prefix}/app:{wanted.tag}")
        release = images.resolve(target.client, wanted, target.store.prefix)
        planned = images.plan(snapshot, release, base, target.store.prefix,
                              proxies(target))
        builds = {name: each for name, each in planned.items() if name not in others}
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
               for line in placement.complaints(stack, target.settled_nodes(),
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
           for name, image in {**names, **target.chosen}.items()},
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


def proxies(target: Target) -> Mapping[str, str]:
    """Return this machine's own way out; another machine has its own."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") if target.fleet.local else ()
    return {name: os.environ[name] for name in names if name in os.environ}


def running_replicas(target: Target) -> int:
    """Return how many tasks the application has, as scale left it, or how many it gets at first."""
    for record in records.history(target.client)[:1]:
        return record.stack.replicas
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
