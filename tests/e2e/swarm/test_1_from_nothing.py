"""From bare machines behind SSH to one Swarm with the site, and what is true afterwards."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from paramiko import AuthenticationException, BadAuthenticationType, Ed25519Key, Transport

from tests.e2e.cluster import entry, nothing_changed
from tests.e2e.laptop import Laptop, takes_less_than
from tests.e2e.ports import reacting
from tests.e2e.site import Page, Site
from tests.lab import Lab, Machine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

PUBLIC = {"tcp/22", "tcp/80", "tcp/443"}
CLUSTER = {"tcp/2377", "tcp/5000", "tcp/7946", "udp/4789", "udp/7946"}
WELL_KNOWN = {f"{kind}/{number}" for kind in ("tcp", "udp") for number in (
    *range(1, 1024), 2375, 2376, 3000, 3306, 5432, 6443, 8000, 8080, 8443, 9000, 9090, 9100)}
NODES = "docker node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}'"


def sites(machines: list[Machine], laptop: Laptop) -> list[Site]:
    """Return the site at each machine's address."""
    return [Site(machine.address, laptop.shell) for machine in machines]


def second_run(laptop: Laptop) -> str:
    done = laptop.fab("bootstrap")
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout


def test_one_command_makes_bare_machines_serve_the_same_count(
        lab: Lab, laptop: Laptop, managers: list[Machine]) -> None:
    laptop.choose([entry(machine) for machine in managers])
    visitor, other = lab.client_addresses[:2]

    done = laptop.fab("bootstrap --accept-new-host-keys deploy")

    assert done.code == 0, done.stdout + done.stderr
    addresses = {machine.address for machine in managers}
    assert {word.removeprefix("http://") for word in done.stdout.splitlines()[-1].split()
            if word.startswith("http://")} == addresses
    anna, berta, carla = sites(managers, laptop)
    first = anna.visit(visitor)
    assert (berta.visit(visitor), carla.visit(visitor)) == (
        Page(first.visits + 1, first.visitors), Page(first.visits + 2, first.visitors))
    assert carla.visit(other).visitors == first.visitors + 1
    assert {site.version() for site in (anna, berta, carla)} == {
        done.stdout.split("verdict")[1].split()[0]}
    # The loss of one manager costs at most one of the application's tasks.
    nodes = managers[1].console(
        "docker service ps tally_app --filter desired-state=running --format {{.Node}}").stdout
    assert len(set(nodes.split())) == len(nodes.split()) == 2
    assert [line.rsplit(maxsplit=1)[0] for line in
            sorted(managers[2].console(NODES).stdout.splitlines())] == [
        f"{machine.name} Ready Active" for machine in managers]


def test_status_says_that_all_is_well_on_every_machine(
        laptop: Laptop, swarm: list[Machine]) -> None:
    done = laptop.fab("status")

    assert done.code == 0, done.stdout + done.stderr
    for machine in swarm:
        row = next(line for line in done.stdout.splitlines() if machine.address in line)
        assert row.split()[0] == machine.name and "ready" in row
    assert "traefik       3/3" in done.stdout


def test_a_second_bootstrap_and_deploy_changes_nothing(
        laptop: Laptop, swarm: list[Machine]) -> None:
    with nothing_changed(swarm):
        done = laptop.fab("bootstrap deploy")

    assert done.code == 0, done.stdout + done.stderr
    outcomes = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    told = [line for line in outcomes if "unchanged" not in line]
    assert {line.split()[0] for line in told} == {"preflight", "verdict"}, told


def test_a_second_bootstrap_of_three_machines_takes_less_than_five_seconds(
        laptop: Laptop, swarm: list[Machine]) -> None:
    assert takes_less_than(5, laptop, lambda: second_run(laptop))


def test_a_plan_for_three_machines_takes_less_than_three_seconds(
        laptop: Laptop, swarm: list[Machine]) -> None:
    def plan() -> None:
        done = laptop.fab("plan --exit-code")
        assert done.code == 0 and "nothing to do" in done.stdout, done.stdout + done.stderr

    assert takes_less_than(3, laptop, plan)


def test_only_ssh_and_the_web_respond_to_the_outside(swarm: list[Machine]) -> None:
    listening = set().union(*map(listeners, swarm))
    # Otherwise the scan would only prove that nothing listens.
    assert CLUSTER | PUBLIC <= listening | {"udp/4789"}
    # The scan has to tell a refusal from silence.
    closed = closed_udp_port()
    assert reacting("127.0.0.1", {closed}) == {closed}

    found = {machine.name: reacting(machine.address, listening | WELL_KNOWN | CLUSTER)
             for machine in swarm}

    assert found == {machine.name: PUBLIC for machine in swarm}


def test_neither_root_nor_a_password_can_log_in(lab: Lab, swarm: list[Machine]) -> None:
    for machine in swarm:
        assert accepted_ways(machine.address, "deploy") == ["publickey"]
        assert not lets_in(machine.address, "root", lab.private_key)
        assert lets_in(machine.address, "deploy", lab.private_key)


def listeners(machine: Machine) -> set[str]:
    """Return every port on which a machine's processes listen, at any address."""
    said = machine.console("ss --no-header --listening --numeric --tcp --udp").stdout
    return {f"{line.split()[0]}/{line.split()[4].rpartition(':')[2]}"
            for line in said.splitlines()}


def closed_udp_port() -> str:
    """Return a UDP port of this host on which nothing listens and no firewall drops."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        return f"udp/{taken.getsockname()[1]}"


@contextmanager
def connected(address: str) -> Iterator[Transport]:
    """Open an SSH connection to a machine, without a login."""
    transport = Transport((address, 22))
    try:
        transport.start_client(timeout=30)
        yield transport
    finally:
        transport.close()


def accepted_ways(address: str, user: str) -> list[str]:
    """Return the authentication methods that a user may use."""
    with connected(address) as transport, pytest.raises(BadAuthenticationType) as refused:
        transport.auth_none(user)
    return list(refused.value.allowed_types)


def lets_in(address: str, user: str, key: Path) -> bool:
    """Return whether a user can log in with a key."""
    with connected(address) as transport, suppress(AuthenticationException):
        transport.auth_publickey(user, Ed25519Key.from_private_key_file(str(key)))
        return transport.is_authenticated()
    return False
