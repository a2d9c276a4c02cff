"""Machines that are added later join the Swarm and change roles without disturbing the site."""

import pytest

from tests.e2e.cluster import entry, nothing_changed, on_all
from tests.e2e.laptop import Laptop, takes_less_than
from tests.lab import Machine, host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

NODES = "docker node ls --format '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'"
TASKS = "docker stack ps tally --quiet --no-trunc --filter desired-state=running"
# The services that run only on managers, or on edges, which are all managers by default.
OF_MANAGERS = "docker ps --quiet --filter name=tally_traefik --filter name=tally_socket-proxy"


@pytest.fixture(scope="module")
def five(laptop: Laptop, swarm: list[Machine], spare: list[Machine]) -> list[Machine]:
    """The three managers, and two workers that are in the inventory but not in the Swarm."""
    five = [*swarm, *spare]
    choose(laptop, five, "worker")
    return five


def choose(laptop: Laptop, five: list[Machine], role: str) -> None:
    """Write an inventory of three managers, and the other two with this role."""
    laptop.choose([*(entry(machine) for machine in five[:3]),
                   *(entry(machine, role) for machine in five[3:])])


def bootstrapped(laptop: Laptop) -> str:
    done = laptop.fab("bootstrap --accept-new-host-keys")
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout


def give_role(laptop: Laptop, five: list[Machine], role: str) -> None:
    """Give the other two machines this role, and check that bootstrap says so."""
    choose(laptop, five, role)
    told = bootstrapped(laptop)
    for machine in five[3:]:
        assert f"{machine.address} is now a {role}" in told


def states(manager: Machine) -> dict[str, list[str]]:
    """Return each node's state and, for a manager, its manager status."""
    return {line.split()[0]: line.split()[1:]
            for line in manager.console(NODES).stdout.splitlines()}


def tasks(manager: Machine) -> set[str]:
    """Return the IDs of the site's tasks that should run."""
    return set(manager.console(TASKS).stdout.split())


def wait_well(laptop: Laptop) -> None:
    host.wait_until(lambda: laptop.fab("status").code == 0, 120, "all well")


def test_two_workers_join_without_disturbing_the_site(
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


def test_a_second_bootstrap_of_five_machines_changes_nothing_in_less_than_eight_seconds(
        laptop: Laptop, five: list[Machine]) -> None:
    bootstrapped(laptop)
    with nothing_changed(five):
        assert takes_less_than(8, laptop, lambda: bootstrapped(laptop))


def test_promoted_workers_become_managers_and_edges(
        laptop: Laptop, five: list[Machine]) -> None:
    before = tasks(five[0])

    give_role(laptop, five, "manager")

    # Status asks each edge for its version, so the new ones too.
    wait_well(laptop)
    assert sorted(states(five[0]).values()) == [["Ready", "Leader"], *[["Ready", "Reachable"]] * 4]
    after = tasks(five[0])
    assert before <= after and len(after - before) == 4


def test_a_second_bootstrap_of_five_managers_changes_nothing_in_less_than_eight_seconds(
        laptop: Laptop, five: list[Machine]) -> None:
    with nothing_changed(five):
        assert takes_less_than(8, laptop, lambda: bootstrapped(laptop))


def test_demoted_managers_leave_everything_as_it_was(
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
