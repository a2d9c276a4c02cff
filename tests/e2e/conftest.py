"""Fixtures of the end-to-end tests: a newcomer's machine, or a laptop and its Swarm."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stack.commands.cloud_init import render
from stack.inventory.settings import ROOT
from tests.e2e.cluster import entry
from tests.e2e.faults import Scene, well
from tests.e2e.laptop import Laptop, new_laptop
from tests.e2e.site import Site, bare_clone, newcomer
from tests.lab import Lab, Machine


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare_clone(ROOT, tmp_path_factory.mktemp("origin"))


@pytest.fixture(scope="session")
def machine(lab: Lab) -> Machine:
    """A plain Debian 13 machine: no Docker, no pip, no venv."""
    machine, = lab.boot(names=["newcomer"])
    return machine


@pytest.fixture(scope="session")
def site(machine: Machine, repository: Path) -> Site:
    """The site after the README's command, run once as root on the plain machine."""
    site = newcomer(machine, repository, "root")
    done = site.fab("bootstrap deploy")
    assert done.code == 0, done.stdout + done.stderr
    assert "Tally runs at http://localhost\n" in done.stdout
    return site


@pytest.fixture(scope="module")
def colleague(lab: Lab, repository: Path) -> Iterator[tuple[Machine, Site]]:
    """A second plain machine, and the clone of a user with sudo."""
    machine, = lab.boot(names=["colleague"])
    yield machine, newcomer(machine, repository, "deploy")
    lab.discard(machine)


@pytest.fixture
def edited(site: Site) -> Iterator[Site]:
    """The site; the files of its clone are restored after the test."""
    yield site
    site.restore_files()


@pytest.fixture(scope="session")
def addresses(lab: Lab) -> Iterator[str]:
    """Unused client addresses."""
    return iter(lab.client_addresses)


@pytest.fixture
def address(addresses: Iterator[str]) -> str:
    """An unused client address."""
    return next(addresses)


@pytest.fixture
def take(addresses: Iterator[str]) -> partial[str]:
    """Take another unused client address with each call."""
    return partial(next, addresses)


@pytest.fixture(scope="session")
def laptop(lab: Lab, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """The laptop of an operator who has just cloned the project."""
    return new_laptop(tmp_path_factory.mktemp("laptop") / "operator", repository, lab.private_key)


def booted(lab: Lab, *names: str) -> Iterator[list[Machine]]:
    """Boot machines with the project's user-data; they end with the fixture."""
    machines = lab.boot(user_data=render(lab.public_key), names=names)
    yield machines
    for machine in machines:
        lab.discard(machine)


@pytest.fixture(scope="session")
def managers(lab: Lab) -> Iterator[list[Machine]]:
    """Three machines that cloud-init has prepared."""
    yield from booted(lab, "anna", "berta", "carla")


@pytest.fixture(scope="session")
def swarm(laptop: Laptop, managers: list[Machine]) -> list[Machine]:
    """The three machines, with the site running on them."""
    laptop.choose([entry(machine) for machine in managers])
    done = laptop.fab("bootstrap --accept-new-host-keys deploy")
    assert done.code == 0, done.stdout + done.stderr
    return managers


@pytest.fixture
def chosen(laptop: Laptop, swarm: list[Machine]) -> Iterator[list[Machine]]:
    """The three machines; after the test the inventory names only these again."""
    known = laptop.known_hosts.read_text()
    yield swarm
    laptop.choose([entry(machine) for machine in swarm])
    laptop.known_hosts.write_text(known)


@pytest.fixture(scope="session")
def scene(lab: Lab, laptop: Laptop, swarm: list[Machine]) -> Iterator[Scene]:
    """The three managers, with a second release deployed."""
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


@pytest.fixture(scope="session")
def spare(lab: Lab, swarm: list[Machine]) -> Iterator[list[Machine]]:
    """Two more machines, not in a Swarm yet."""
    yield from booted(lab, "dora", "emma")
