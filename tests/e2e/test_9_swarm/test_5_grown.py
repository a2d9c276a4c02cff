"""A site that began on one machine goes on on several, with all that it has counted."""

import pytest

from tests.e2e.cluster import entry, on_all
from tests.e2e.laptop import Laptop
from tests.e2e.site import Page, Site
from tests.e2e.test_9_swarm.test_4_broken_off import RESET
from tests.lab import Lab, Machine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def one(laptop: Laptop, managers: list[Machine]) -> Machine:
    """One machine of the inventory, on which the site runs without a registry."""
    on_all(managers, RESET)
    laptop.choose([entry(managers[0])])
    done = laptop.fab("bootstrap --accept-new-host-keys deploy")
    assert done.code == 0, done.stdout + done.stderr
    return managers[0]


def test_alone_it_listens_for_others_where_the_inventory_says(one: Machine) -> None:
    listening = one.console("ss --no-header --listening --numeric --tcp sport = :2377").stdout
    assert listening.split()[3] == f"{one.address}:2377"


def test_its_visits_are_still_known_on_three(
        lab: Lab, laptop: Laptop, managers: list[Machine], one: Machine) -> None:
    visitor = lab.client_addresses[-1]
    before = Site(one.address, laptop.shell).visit(visitor)

    laptop.choose([entry(machine) for machine in managers])
    done = laptop.fab("bootstrap --accept-new-host-keys deploy")

    assert done.code == 0, done.stdout + done.stderr
    for number, machine in enumerate(managers, start=1):
        assert Site(machine.address, laptop.shell).visit(visitor) == Page(
            before.visits + number, before.visitors)
