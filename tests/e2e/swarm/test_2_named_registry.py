"""A registry that the inventory names gets the images and serves them, with its credentials."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.cluster import entry, nothing_changed
from tests.e2e.faults import Scene, Serving, well
from tests.e2e.site import lines
from tests.lab import Machine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600), pytest.mark.usefixtures("restored")]

CREDENTIALS = "/etc/tally/docker/config.json"
CA = "/etc/docker/certs.d/{host}/ca.crt"
CONTAINER = "docker ps --no-trunc --filter label=com.docker.swarm.service.name=tally_app " \
    "--format {{.Image}}"


def known_credentials(machine: Machine, host: str) -> tuple[str, str]:
    """Return a manager's user and password for the Swarm's own registry."""
    auth = json.loads(machine.console(["cat", CREDENTIALS]).stdout)["auths"][host]["auth"]
    user, _, password = base64.b64decode(auth).decode().partition(":")
    return user, password


def test_images_are_kept_in_a_registry_that_the_inventory_names(scene: Scene) -> None:
    """The test uses the Swarm's own registry, but the inventory names it like any other."""
    serving, home = scene.serving(), scene.laptop.home
    host = f"{scene.holder.address}:5000"
    user, password = known_credentials(scene.holder, host)
    (home / "password").write_text(f"{password}\n")
    (home / "ca.pem").write_text(scene.holder.console(["cat", CA.format(host=host)]).stdout)
    # The other services' images aren't built again.
    others = {name: serving.definitions[f"tally_{name}"]["TaskTemplate"]["ContainerSpec"]["Image"]
              for name in ("postgres", "traefik", "socket-proxy")}
    # The label keeps the Swarm's own registry; bootstrap would remove it once another is named.
    keeper, *rest = scene.machines
    scene.laptop.choose(
        [entry(keeper, registry="true", postgres="true", edge="true"),
         *(entry(machine, edge="true") for machine in rest)], images=others,
        registry={"address": f"{host}/team", "user": user, "password_file": "~/password",
                  "ca": "~/ca.pem"})
    with forgotten(scene, CREDENTIALS, CA.format(host=host)):
        check(scene, serving, host)


@contextmanager
def forgotten(scene: Scene, *files: str) -> Iterator[None]:
    """Remove the registry's credentials from all machines; restore everything at the end."""
    for machine in scene.machines:
        machine.console(["rm", *files])
    try:
        yield
    finally:
        scene.restore()
        well(scene.fab("bootstrap"))


def check(scene: Scene, serving: Serving, host: str) -> None:
    """Bootstrap and deploy; check where the images are."""
    assert "credentials" in well(scene.fab("bootstrap")).stdout
    with nothing_changed(scene.machines):
        refused = scene.fab("deploy", env="REGISTRY_PASSWORD=wrong")
    with scene.visited():
        done = well(scene.fab("deploy --json"))

    assert (refused.code, lines(refused)) == (1, [
        f"the registry {host}: it rejects the password: ./fab bootstrap repairs the Swarm's own; "
        "for another, correct the inventory"])
    serving.check(done)
    images = {image for machine in scene.machines
              for image in machine.console(CONTAINER).stdout.split()}
    assert {image.partition("/app:")[0] for image in images} == {f"{host}/team/tally"}
