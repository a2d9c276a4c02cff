"""Give the end-to-end tests machines with a fresh clone, as a newcomer has them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stack.settings import ROOT
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
    """Run the README's command once, as root, on the plain machine."""
    site = newcomer(machine, repository, "root")
    done = site.fab("bootstrap deploy")
    assert done.code == 0, done.stdout + done.stderr
    assert "Tally runs at http://localhost\n" in done.stdout
    return site


@pytest.fixture(scope="module")
def colleague(lab: Lab, repository: Path) -> Iterator[tuple[Machine, Site]]:
    """A second plain machine, and the clone of a user who isn't root but has sudo."""
    machine, = lab.boot(names=["colleague"])
    yield machine, newcomer(machine, repository, "deploy")
    lab.discard(machine)


@pytest.fixture
def edited(site: Site) -> Iterator[Site]:
    """The site, whose clone's files are put back after the test."""
    yield site
    site.restore_files()


@pytest.fixture(scope="session")
def addresses(lab: Lab) -> Iterator[str]:
    """Client addresses that no test has visited from yet."""
    return iter(lab.client_addresses)


@pytest.fixture
def address(addresses: Iterator[str]) -> str:
    """A client address that is new to the site."""
    return next(addresses)


@pytest.fixture
def take(addresses: Iterator[str]) -> partial[str]:
    """Take further new client addresses, one a call."""
    return partial(next, addresses)
