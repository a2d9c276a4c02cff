"""Machines that are named later join what runs, change their roles, and disturb nothing of it."""

import pytest

from tests.e2e.cluster import entry, nothing_changed, on_all
from tests.e2e.laptop import Laptop, quickest
from tests.lab import Machine, host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

NODES = "docker node ls --format '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'"
TASKS = "docker stack ps tally --quiet --no-trunc --filter desired-state=running"
# What runs on the managers alone, or on those of them that are edges, which is all by default.
OF_MANAGERS = "docker ps --quiet --filter name=tally_traefik --filter name=tally_socket-proxy"


@pytest.fixture(scope="module")
def five(laptop: Laptop, swarm: list[Machine], spare: list[Machine]) -> list[Machine]:
    """The three managers and two workers, in the inventory and not yet in the Swarm."""
    five = [*swarm, *spare]
    choose(laptop, five, "worker")
    return five


def choose(laptop: Laptop, five: list[Machine], role: str) -> None:
    """Name three managers, and the two others in a role."""
    laptop.choose([*(entry(machine) for machine in five[:3]),
                   *(entry(machine, role) for machine in five[3:])])


def bootstrapped(laptop: Laptop) -> str:
    done = laptop.fab("bootstrap --accept-new-host-keys")
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout


def give_role(laptop: Laptop, five: list[Machine], role: str) -> None:
    """Name the two others in a role, and see bootstrap give it to them."""
    choose(laptop, five, role)
    told = bootstrapped(laptop)
    for machine in five[3:]:
        assert f"{machine.address} is now a {role}" in told


def states(manager: Machine) -> dict[str, list[str]]:
    """Return each node's state and, of a manager, its part among them."""
    return {line.split()[0]: line.split()[1:]
            for line in manager.console(NODES).stdout.splitlines()}


def tasks(manager: Machine) -> set[str]:
    """Return the ids of the site's tasks that should run."""
    return set(manager.console(TASKS).stdout.split())


def wait_well(laptop: Laptop) -> None:
    host.wait_until(lambda: laptop.fab("status").code == 0, 120, "all well")


def test_two_workers_join_and_what_runs_stays_as_it_is(
        laptop: Laptop, five: list[Machine]) -> None:
    before = tasks(five[0])

    bootstrapped(laptop)

    found = states(five[0])
    assert [found[machine.name] for machine in five[3:]] == [["Ready"], ["Ready"]]
    assert [found[machine.name][0] for machine in five[:3]] == ["Ready"] * 3
    assert tasks(five[0]) == before
    for machine in five:
        assert set(machine.console("grep --invert-match ^# /etc/tally/peers").stdout.split()) \
            == {other.address for other in five if other is not machine}


@pytest.mark.alone
def test_a_second_bootstrap_of_five_machines_changes_nothing_in_less_than_eight_seconds(
        laptop: Laptop, five: list[Machine]) -> None:
    bootstrapped(laptop)
    with nothing_changed(five):
        assert quickest(3, lambda: bootstrapped(laptop)) < 8


def test_workers_that_are_named_managers_become_managers_and_edges(
        laptop: Laptop, five: list[Machine]) -> None:
    before = tasks(five[0])

    give_role(laptop, five, "manager")

    # Asks for the version at each edge, so at the new ones as well.
    wait_well(laptop)
    assert sorted(states(five[0]).values()) == [["Ready", "Leader"], *[["Ready", "Reachable"]] * 4]
    after = tasks(five[0])
    assert before <= after and len(after - before) == 4


@pytest.mark.alone
def test_a_second_bootstrap_of_five_managers_changes_nothing_in_less_than_eight_seconds(
        laptop: Laptop, five: list[Machine]) -> None:
    with nothing_changed(five):
        assert quickest(3, lambda: bootstrapped(laptop)) < 8


def test_managers_that_are_named_workers_again_leave_all_as_it_was(
        laptop: Laptop, five: list[Machine]) -> None:
    before = tasks(five[0])

    give_role(laptop, five, "worker")

    host.wait_until(lambda: not any(on_all(five[3:], OF_MANAGERS)), 60,
                    "end of what runs on managers alone")
    wait_well(laptop)
    found = states(five[0])
    assert [found[machine.name] for machine in five[3:]] == [["Ready"], ["Ready"]]
    assert sorted(found[machine.name] for machine in five[:3]) == [
        ["Ready", "Leader"], *[["Ready", "Reachable"]] * 2]
    after = tasks(five[0])
    assert after <= before and len(before - after) == 4
