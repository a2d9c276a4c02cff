"""Take the stack away, and its data only when told."""

import time
from concurrent.futures import ThreadPoolExecutor

from stack import attempts, console, engine, images, lock, migration, records, swarm
from stack.console import step
from stack.errors import OperatorError, Refused
from stack.target import Target
from stack.swarm import NAMESPACE, OF_STACK, STACK

CONTAINERS = ("docker", "ps", "--all", "--quiet", f"--filter=label={NAMESPACE}={STACK}")


@engine.in_one_line
def destroy(data: bool, yes: bool) -> None:
    """Remove services, networks and records; with `data` the visits and secrets too.

    Asks unless `yes`. Docker, the Swarm and the base image stay.
    """
    target = Target.reach("./fab destroy")
    what = "the stack AND ALL ITS DATA" if data else "the stack; its data stays"
    if not yes and not console.confirm(f"Remove {what}?"):
        raise Refused("nothing was removed", "answer y, or say --yes")
    with lock.hold(target.client):
        with step("services") as current:
            if remove_stack(target):
                current.changed("removed")
        with step("records") as current:
            if records.history(target.client) or attempts.history(target.client):
                records.forget_all(target.client)
                attempts.forget_all(target.client)
                current.changed("removed")
        with step("images") as current:
            if remove_images(target):
                current.changed("removed")
        if data:
            remove_data(target)


def remove_images(target: Target) -> bool:
    """Remove the stack's images from every machine that answers."""
    with ThreadPoolExecutor(len(target.fleet.members)) as pool:
        removed = pool.map(lambda member: images.tidy(member.machine, target.store.prefix, ()),
                           target.fleet.members)
        return any(list(removed))


def remove_stack(target: Target, timeout: float = 150) -> bool:
    """Remove the stack and wait until its last container has gone, on every machine."""
    machines = [member.machine for member in target.fleet.members]
    migration.remove_all(target.client, *machines)
    if not target.client.services.list(filters=OF_STACK):
        return False
    done = target.cli.stack("rm", STACK)
    if not done.ok:
        raise OperatorError(f"docker stack rm: {done.last_line}", "./fab destroy")
    deadline = time.monotonic() + timeout
    while target.client.networks.list(filters=OF_STACK) or any(
            machine.must(CONTAINERS) for machine in machines):
        if time.monotonic() > deadline:
            raise OperatorError(f"the stack's containers or networks are still there after "
                                f"{timeout:.0f} s", "docker ps --all, then ./fab destroy")
        time.sleep(0.5)
    return True


def remove_data(target: Target) -> None:
    """Remove the data volume and the secrets that belong to it."""
    with step("data volume") as current:
        holder = target.holder("postgres")
        if holder is None:
            raise OperatorError("the machine with the data volume can't be reached",
                                "./fab destroy --data when it is back")
        if swarm.has_volume(holder.machine):
            holder.machine.must(["docker", "volume", "rm", swarm.VOLUME])
            current.changed("removed")
    records.forget_applied(target.client)
    with step("secrets") as current:
        if found := target.client.secrets.list(filters={"label": swarm.LABEL}):
            for secret in found:
                secret.remove()
            current.changed("removed")
