"""Give the tests of several machines a laptop, and the machines that it reaches over SSH."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.cloud_init import render
from tests.e2e.cluster import entry
from tests.e2e.faults import Scene, well
from tests.e2e.laptop import Laptop, new_laptop
from tests.e2e.site import Site
from tests.lab import Lab, Machine


@pytest.fixture(scope="package")
def laptop(lab: Lab, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """The laptop of an operator who has only just cloned the project."""
    return new_laptop(tmp_path_factory.mktemp("laptop") / "operator", repository, lab.private_key)


def booted(lab: Lab, *names: str) -> Iterator[list[Machine]]:
    """Boot machines with the project's user-data, for as long as they are needed."""
    machines = lab.boot(user_data=render(lab.public_key), names=names)
    yield machines
    for machine in machines:
        lab.discard(machine)


@pytest.fixture(scope="package")
def managers(lab: Lab) -> Iterator[list[Machine]]:
    """Three machines as cloud-init left them."""
    yield from booted(lab, "anna", "berta", "carla")


@pytest.fixture(scope="package")
def swarm(laptop: Laptop, managers: list[Machine]) -> list[Machine]:
    """The three machines, on which the site runs."""
    laptop.choose([entry(machine) for machine in managers])
    done = laptop.fab("bootstrap --accept-new-host-keys deploy")
    assert done.code == 0, done.stdout + done.stderr
    return managers


@pytest.fixture
def chosen(laptop: Laptop, swarm: list[Machine]) -> Iterator[list[Machine]]:
    """The three machines; after the test the inventory names just these again."""
    known = laptop.known_hosts.read_text()
    yield swarm
    laptop.choose([entry(machine) for machine in swarm])
    laptop.known_hosts.write_text(known)


@pytest.fixture(scope="package")
def scene(lab: Lab, laptop: Laptop, swarm: list[Machine]) -> Iterator[Scene]:
    """The three managers, with a release that another came before."""
    scene = Scene(laptop, swarm, [Site(machine.address, laptop.shell) for machine in swarm],
                  lab.client_addresses[-5:])
    scene.restore()
    well(scene.fab("deploy"))
    yield scene


@pytest.fixture
def restored(scene: Scene) -> Iterator[None]:
    """Undo the changes to the clone and to its inventory after each test."""
    yield
    scene.restore()


@pytest.fixture(scope="package")
def spare(lab: Lab, swarm: list[Machine]) -> Iterator[list[Machine]]:
    """Two more machines, which belong to no Swarm yet."""
    yield from booted(lab, "dora", "emma")
