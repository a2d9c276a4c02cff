"""A registry that the inventory names: images go there and come from there with its credentials."""

import base64
import json

import pytest

from tests.e2e.cluster import entry, nothing_changed
from tests.e2e.faults import Scene, well
from tests.e2e.site import lines
from tests.lab import Machine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600), pytest.mark.usefixtures("restored")]

CREDENTIALS = "/etc/tally/docker/config.json"
CA = "/etc/docker/certs.d/{host}/ca.crt"
CONTAINER = "docker ps --no-trunc --filter label=com.docker.swarm.service.name=tally_app " \
    "--format {{.Image}}"


def known_credentials(machine: Machine, host: str) -> tuple[str, str]:
    """Return the user and the password that a manager has for the Swarm's own registry."""
    auth = json.loads(machine.console(["cat", CREDENTIALS]).stdout)["auths"][host]["auth"]
    user, _, password = base64.b64decode(auth).decode().partition(":")
    return user, password


def test_images_are_kept_in_a_registry_that_the_inventory_names(scene: Scene) -> None:
    """The Swarm's own is the one that is at hand; nobody is told that it is."""
    serving, home = scene.serving(), scene.laptop.home
    host = f"{scene.holder.address}:5000"
    user, password = known_credentials(scene.holder, host)
    (home / "password").write_text(f"{password}\n")
    (home / "ca.pem").write_text(scene.holder.console(["cat", CA.format(host=host)]).stdout)
    # What runs of the other services isn't built anew.
    others = {name: serving.definitions[f"tally_{name}"]["TaskTemplate"]["ContainerSpec"]["Image"]
              for name in ("postgres", "traefik", "socket-proxy")}
    scene.laptop.choose(
        [entry(machine) for machine in scene.machines], images=others,
        registry={"address": f"{host}/team", "user": user, "password_file": "~/password",
                  "ca": "~/ca.pem"})
    for machine in scene.machines:
        machine.console(["rm", CREDENTIALS, CA.format(host=host)])

    assert "credentials" in well(scene.fab("bootstrap")).stdout
    with nothing_changed(scene.machines):
        refused = scene.fab("deploy", env="REGISTRY_PASSWORD=wrong")
    with scene.visited():
        done = well(scene.fab("deploy --json"))

    assert (refused.code, lines(refused)) == (1, [
        f"the registry {host}: it refuses the password: ./fab bootstrap mends the Swarm's own; "
        "correct another's in the inventory"])
    serving.check(done)
    images = {image for machine in scene.machines
              for image in machine.console(CONTAINER).stdout.split()}
    assert {image.partition("/app:")[0] for image in images} == {f"{host}/team/tally"}
