"""Take the stack away, and its data only when told."""

import time

import docker

from stack import console, engine, images, lock, migration, records, swarm
from stack.console import step
from stack.errors import OperatorError, Refused
from stack.release import Target
from stack.swarm import STACK


@engine.in_one_line
def destroy(data: bool, yes: bool) -> None:
    """Remove services, networks and records; with `data` the visits and secrets too.

    Asks unless `yes`. Docker, the Swarm and the base image stay.
    """
    target = Target.local("./fab destroy")
    swarm.require_manager(target.client)
    what = "the stack AND ALL ITS DATA" if data else "the stack; its data stays"
    if not yes and not console.confirm(f"Remove {what}?"):
        raise Refused("nothing was removed", "answer y, or say --yes")
    with lock.hold(target.client):
        with step("services") as current:
            if remove_stack(target):
                current.changed("removed")
        with step("records") as current:
            if records.history(target.client):
                records.forget_all(target.client)
                current.changed("removed")
        with step("images") as current:
            if images.remove(target.client, images.tally_images(target.client)):
                current.changed("removed")
        if data:
            remove_data(target.client)


def remove_stack(target: Target, timeout: float = 150) -> bool:
    """Remove the stack and wait until its last container has gone."""
    migration.remove_all(target.client)
    if not target.client.services.list(filters={"label": f"com.docker.stack.namespace={STACK}"}):
        return False
    done = target.cli.stack("rm", STACK)
    if not done.ok:
        raise OperatorError(f"docker stack rm: {done.last_line}", "./fab destroy")
    deadline = time.monotonic() + timeout
    label: dict[str, str | list[str] | bool] = {"label": f"com.docker.stack.namespace={STACK}"}
    while target.client.containers.list(all=True, filters=label, ignore_removed=True) \
            or target.client.networks.list(filters=label):
        if time.monotonic() > deadline:
            raise OperatorError(f"the stack's containers or networks are still there after "
                                f"{timeout:.0f} s", "docker ps --all, then ./fab destroy")
        time.sleep(0.5)
    return True


def remove_data(client: docker.DockerClient) -> None:
    """Remove the data volume and the secrets that belong to it."""
    with step("data volume") as current:
        if swarm.has_volume(client):
            client.volumes.get(swarm.VOLUME).remove()
            current.changed("removed")
    with step("secrets") as current:
        if found := client.secrets.list(filters={"label": swarm.LABEL}):
            for secret in found:
                secret.remove()
            current.changed("removed")
