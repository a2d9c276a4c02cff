"""Machines that the inventory names later join what runs, and nothing of it is disturbed."""

import pytest

from tests.e2e.cluster import entry, nothing_changed
from tests.e2e.laptop import Laptop, quickest, slowness
from tests.lab import Machine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

NODES = "docker node ls --format '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'"
TASKS = "docker stack ps tally --quiet --no-trunc --filter desired-state=running | sort"


@pytest.fixture(scope="module")
def five(laptop: Laptop, swarm: list[Machine], spare: list[Machine]) -> list[Machine]:
    """The three managers and two workers, in the inventory and not yet in the Swarm."""
    laptop.choose([*(entry(machine) for machine in swarm),
                   *(entry(machine, "worker") for machine in spare)])
    return [*swarm, *spare]


def bootstrapped(laptop: Laptop) -> str:
    done = laptop.fab("bootstrap --accept-new-host-keys")
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout


def test_two_workers_join_and_what_runs_stays_as_it_is(
        laptop: Laptop, five: list[Machine]) -> None:
    before = five[0].console(TASKS).stdout

    bootstrapped(laptop)

    states = {line.split()[0]: line.split()[1:] for line in
              five[0].console(NODES).stdout.splitlines()}
    assert [states[machine.name] for machine in five[3:]] == [["Ready"], ["Ready"]]
    assert [states[machine.name][0] for machine in five[:3]] == ["Ready"] * 3
    assert five[0].console(TASKS).stdout == before
    for machine in five:
        assert set(machine.console("grep --invert-match ^# /etc/tally/peers").stdout.split()) \
            == {other.address for other in five if other is not machine}


def test_a_second_bootstrap_of_five_machines_changes_nothing_in_less_than_eight_seconds(
        laptop: Laptop, five: list[Machine]) -> None:
    bootstrapped(laptop)
    with nothing_changed(five):
        assert quickest(3, lambda: bootstrapped(laptop)) < 8 * slowness(laptop)
