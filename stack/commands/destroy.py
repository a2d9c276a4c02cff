"""Remove the stack, and its data only on request."""

from concurrent.futures import ThreadPoolExecutor

from stack import console, waiting
from stack.commands.one_line import in_one_line
from stack.errors import OperatorError, Refused
from stack.images import builds
from stack.machines import docker_command
from stack.progress import step
from stack.release import migrate
from stack.release.target import Target
from stack.state import failed_changes, lock, releases, schema
from stack.swarm import secrets, volume
from stack.swarm.names import NAMESPACE, OF_STACK, STACK
from stack.swarm.networks import find_networks
from stack.swarm.services import services

CONTAINERS = ("ps", "--all", "--quiet", f"--filter=label={NAMESPACE}={STACK}")


@in_one_line
def destroy(data: bool, yes: bool) -> None:
    """Remove services, networks and records; with `data` the visits and secrets too.

    Asks unless `yes`. Docker, the Swarm and the base image stay.
    """
    target = Target.reach("./fab destroy")
    what = "the stack AND ALL ITS DATA" if data else "the stack (its data stays)"
    if not yes and not console.confirm(f"Remove {what}?"):
        raise Refused("nothing was removed", "confirm with y, or pass --yes")
    with lock.hold(target.engine):
        with step("services") as current:
            if remove_stack(target):
                current.changed("removed")
        with step("records") as current:
            if releases.history(target.engine) or failed_changes.history(target.engine):
                releases.forget_all(target.engine)
                failed_changes.forget_all(target.engine)
                current.changed("removed")
        with step("images") as current:
            if remove_images(target):
                current.changed("removed")
        if data:
            remove_data(target)


def remove_images(target: Target) -> bool:
    """Remove the stack's images from every machine that answers."""
    with ThreadPoolExecutor(len(target.fleet.members)) as pool:
        removed = pool.map(lambda member: builds.tidy(member.machine, target.store.prefix, ()),
                           target.fleet.members)
        return any(list(removed))


def remove_stack(target: Target, timeout: float = 150) -> bool:
    """Remove the stack and wait until its last container has gone, on every machine."""
    machines = [member.machine for member in target.fleet.members]
    migrate.remove_all(target.engine, *machines)

    def gone() -> bool:
        return not find_networks(target.engine, OF_STACK) and not any(
            docker_command.must(machine, *CONTAINERS) for machine in machines)
    # Networks and containers may be left of a command that was broken off.
    if not services(target.engine) and gone():
        return False
    done = target.cli.stack("rm", STACK)
    if not done.ok:
        raise OperatorError(f"docker stack rm: {done.last_line}", "./fab destroy")
    if not waiting.until(gone, timeout):
        raise OperatorError(f"the stack's containers or networks are still there after "
                            f"{timeout:.0f} s", "docker ps --all, then ./fab destroy")
    return True


def remove_data(target: Target) -> None:
    """Remove the data volume and the secrets that belong to it."""
    with step("data volume") as current:
        holder = target.holder("postgres")
        if holder is None:
            raise OperatorError("the machine with the data volume can't be reached",
                                "./fab destroy --data when it is back")
        if volume.has_volume(holder.machine):
            docker_command.must(holder.machine, "volume", "rm", volume.VOLUME)
            current.changed("removed")
    schema.forget_applied(target.engine)
    with step("secrets") as current:
        if found := target.engine.secrets.list(secrets.LABEL):
            for secret in found:
                target.engine.secrets.remove(secret.id)
            current.changed("removed")
