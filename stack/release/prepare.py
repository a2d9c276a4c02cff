"""Check a checkout against the Swarm, build its images and render its stack."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from stack.errors import Refused, raise_all
from stack.images import snapshot
from stack.images.base import Base
from stack.images.builds import Build, build_all, plan_builds, resolve
from stack.images.snapshot import Snapshot
from stack.images.version import Version, renewal_of
from stack.inventory.settings import ROOT, inventory_path
from stack.machines import checks, clock, host_keys
from stack.machines.local import LocalMachine
from stack.progress import Step, step
from stack.release import connections, rollout, schema_compatibility
from stack.release.found import Found
from stack.release.render import STACK_FILE, proxies, render
from stack.release.target import Target
from stack.state.revisions import Revision, read
from stack.swarm import migration_job, nodes, placement, volume
from stack.swarm.fleet import Member
from stack.swarm.stackfile import Stack

MIGRATIONS = "migrations/versions"


def snapshot_of(target: Target) -> AbstractContextManager[Snapshot]:
    """Take a snapshot of the checkout, without the inventory."""
    path = inventory_path()
    apart = [path, path.parent / host_keys.FILE] if path else []
    return snapshot.snapshot(ROOT, LocalMachine(), apart)


@dataclass(frozen=True)
class Prepared:
    """What preflight has found, and what it lets be built and deployed."""

    found: Found
    release: Version
    builds: Mapping[str, Build]
    revisions: tuple[Revision, ...]


def prepare(target: Target, snapshot: Snapshot) -> Prepared:
    """Check everything that can be checked before the first change."""
    if not target.fleet.local:
        check_machines(target)
    with step("preflight") as current:
        found = Found.read(target)
        base = require_base(target, found)
        check_volume(target, found)
        target.store.check()
        if target.fleet.local:
            checks.check_room(target.machine, checks.LEAST_DISK)
            checks.check_ports(target.machine, target.settings)
        nodes.require_labels(target.engine)
        wanted = snapshot.version().upon(base.renewal)
        # A missing image refuses the deploy before any image is fetched.
        others = target.chosen
        # The registry may have this version from another commit, built elsewhere.
        target.store.fetch(f"{target.store.prefix}/app:{wanted.tag}")
        release = resolve(target.engine, wanted, target.store.prefix)
        planned = plan_builds(snapshot, release, base.image, target.store.prefix, proxies(target))
        builds = {name: each for name, each in planned.items() if name not in others}
        stack = render(target, snapshot, found,
                       {name: each.tag for name, each in builds.items()})
        if complaint := rollout.check(target.cli, stack):
            raise Refused(f"{STACK_FILE}: {complaint}")
        migration_job.task_template(target.engine, stack)
        connections.check(stack, snapshot.files, target.fleet.inventory)
        check_placement(target, stack)
        steps = read(snapshot.files / MIGRATIONS)
        schema_compatibility.check_deploy(steps, found.latest, found.applied)
        current.found(f"version {release.text}, all checks passed")
    return Prepared(found, release, builds, steps)


def check_placement(target: Target, stack: Stack, migrates: bool = True) -> None:
    """Refuse a stack with a task that Swarm could never place."""
    raise_all([Refused(f"{STACK_FILE}: {line}", "./fab status shows the nodes")
               for line in placement.complaints(stack, target.settled_nodes(),
                                                placement.find_running(target.engine),
                                                migrates=migrates)])


def check_machines(target: Target) -> None:
    """Check disk space, ports and clock on each reachable machine."""
    def check(member: Member, current: Step) -> float:
        checks.check_room(member.machine, checks.LEAST_DISK)
        if member.host.labels.get("edge") == "true":
            checks.check_ports(member.machine, target.settings)
        return clock.offset(member.machine)
    offsets = target.fleet.each("machines", check)
    raise_all([Refused(line) for line in clock.complaints(
        dict(zip((member.name for member in target.fleet.members), offsets)))])


def require_base(target: Target, found: Found) -> Base:
    """Return the base image; raises Refused if there is none, or only an older one.

    Another manager may build now, or the base image may have been removed and made again.
    """
    if found.base is None:
        raise Refused(f"the base image is missing on {target.machine.name}",
                      "./fab bootstrap makes it")
    if found.latest and found.base.renewal < renewal_of(found.latest.version):
        raise Refused(f"{found.latest.version} is built upon a newer base image than that of "
                      f"{target.machine.name}", "./fab bootstrap --renew-base")
    return found.base


def check_volume(target: Target, found: Found) -> None:
    """Refuse a Swarm without a data volume, or whose data is gone."""
    holder = target.holder("postgres")
    if holder is None or volume.has_volume(holder.machine):
        return
    if found.history:
        raise Refused(f"the volume {volume.VOLUME} is gone, and with it all visits",
                      "restore it, or start over with ./fab destroy --data, "
                      "then ./fab bootstrap deploy")
    raise Refused("the data volume is missing", "./fab bootstrap makes it")


def build(target: Target, snapshot: Snapshot, builds: Mapping[str, Build]) -> None:
    """Build the images that the store lacks."""
    with step("images") as current:
        if missing := target.store.missing(builds.values()):
            names = ", ".join(each.name for each in missing)
            current.doing(f"building {names}, a few minutes the first time")
            if unbuilt := [each for each in missing
                           if not target.engine.images.id(each.tag)]:
                with target.machine.holding(snapshot.files) as files:
                    build_all(target.cli, files, unbuilt)
            target.store.keep(missing)
            current.changed(f"built {names}")
