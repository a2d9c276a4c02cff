"""Before they form a Swarm, machines find out what would prevent it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from pathlib import PurePath

import pytest

from stack.bootstrap import networks
from stack.bootstrap.port_check import Peer, check
from stack.commands.cloud_init import render
from stack.inventory import Host
from stack.machines.local import LocalMachine
from stack.machines.machine import Completed, Input
from stack.swarm.fleet import Member
from tests.lab import Lab
from tests.lab import Machine as Hardware
from tests.lab import host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

PORTS = {"2377", "4789", "5000", "7946"}


class ConsoleMachine(LocalMachine):
    """A lab's machine on its console, so that commands also run where packets are dropped."""

    def __init__(self, hardware: Hardware) -> None:
        self.name = hardware.name
        self.hardware = hardware

    def run(self, command: Sequence[str], *, stdin: Input = None,
            env: Mapping[str, str] | None = None, cwd: PurePath | None = None,
            timeout: float | None = None) -> Completed:
        limited = ["timeout", str(timeout), *command] if timeout else command
        source = f"printf %s {shlex.quote(stdin)} | " if isinstance(stdin, str) else ""
        done = self.hardware.console(source + shlex.join(limited), check=False)
        return Completed(done.code, done.stdout, done.stderr)


Places = tuple[Peer, Peer, Peer]


@pytest.fixture(scope="module")
def trio(lab: Lab) -> Iterator[list[Hardware]]:
    """Boot three machines with the user-data and make them peers."""
    machines = lab.boot(user_data=render(lab.public_key), names=["one", "two", "three"])
    for machine in machines:
        set_peers(machine, *machines)
    yield machines
    for machine in machines:
        lab.discard(machine)


@pytest.fixture
def peers(trio: list[Hardware]) -> Iterator[Places]:
    """Yield three machines as two managers and a worker; check that no listener is left."""
    one, two, three = (ConsoleMachine(machine) for machine in trio)
    yield (Peer(one, trio[0].address, "manager", joined=False, registry=True),
           Peer(two, trio[1].address, "manager", joined=False, registry=False),
           Peer(three, trio[2].address, "worker", joined=False, registry=False))
    for machine in trio:
        host.wait_until(lambda: listening(machine) == set(), 10, "end of what listened")


def set_peers(machine: Hardware, *peers: Hardware) -> None:
    machine.console(f"printf '%s\\n' {' '.join(peer.address for peer in peers)} "
                    "> /etc/tally/peers && /usr/local/sbin/tally-peers || "
                    "{ journalctl --unit=tally-firewall --lines=20 >&2; exit 1; }")


def test_a_network_of_dockers_that_takes_a_private_address_is_named(trio: list[Hardware]) -> None:
    members = [Member(Host(machine.name, "manager", IPv4Address(machine.address)),
                      ConsoleMachine(machine)) for machine in trio]
    one, two = trio[:2]
    assert networks.complaints(members) == []
    one.console(f"docker network create --subnet={ip_network(f'{two.address}/30', strict=False)} "
                "taking")

    found = networks.complaints(members)

    one.console("docker network rm taking")
    assert [str(line).partition(", end in Docker's own network br-")[0] for line in found] == [
        f"one: its packets to {two.address}, the private address of two"]


def listening(machine: Hardware) -> set[str]:
    """Return the cluster's ports on which something listens."""
    lines = machine.console("ss -Hlntu").stdout.splitlines()
    return {line.split()[4].rsplit(":", 1)[1] for line in lines} & PORTS


def drop(machine: Hardware, rule: str) -> None:
    """Drop packets, like somebody else's firewall."""
    machine.console("nft add table inet other && nft 'add chain inet other arriving "
                    "{ type filter hook input priority 0; }' && "
                    f"nft add rule inet other arriving {rule} drop")


def test_peers_have_no_complaints(peers: Places) -> None:
    assert check(peers) == []


def test_dockers_own_ports_answer_on_nodes_that_have_joined(
        peers: Places, trio: list[Hardware]) -> None:
    one, two, three = peers
    trio[0].console(f"docker swarm init --advertise-addr {one.private}")
    try:
        host.wait_until(lambda: listening(trio[0]) >= {"2377", "7946"}, 10, "Docker's ports")
        assert check((replace(one, joined=True), two, three)) == []
        assert check(peers) == []
        set_peers(trio[0], trio[1])
        assert check((replace(one, joined=True), two, three)) == [
            f"three can't reach {one.private} on any port"]
    finally:
        trio[0].console("docker swarm leave --force")
        set_peers(trio[0], *trio)


def test_a_missing_peer_is_named(peers: Places, trio: list[Hardware]) -> None:
    set_peers(trio[1], trio[0])

    lines = check(peers)

    set_peers(trio[1], *trio)
    assert lines == [f"three can't reach {peers[1].private} on any port"]


def test_a_machine_without_peers_takes_one_line(peers: Places, trio: list[Hardware]) -> None:
    set_peers(trio[1])

    lines = check(peers)

    set_peers(trio[1], *trio)
    assert lines == [f"no other machine can reach {peers[1].private}, the private address of "
                     "two, on any port"]


def test_a_machine_that_is_cut_off_takes_one_line(peers: Places, trio: list[Hardware]) -> None:
    drop(trio[2], "iifname eth0")

    lines = check(peers)

    trio[2].console("nft delete table inet other")
    assert lines == [f"no other machine can reach {peers[2].private}, the private address of "
                     "three, on any port, nor it any other"]


def test_one_closed_port_is_named(peers: Places, trio: list[Hardware]) -> None:
    drop(trio[1], "udp dport 4789")

    lines = check(peers)

    trio[1].console("nft delete table inet other")
    assert lines == [f"no other machine can reach {peers[1].private} on udp/4789"]


def test_a_port_closed_everywhere_takes_one_line(
        peers: Places, trio: list[Hardware]) -> None:
    for machine in trio:
        drop(machine, "udp dport 4789")

    lines = check(peers)

    for machine in trio:
        machine.console("nft delete table inet other")
    assert lines == ["no machine can reach another on udp/4789"]


def test_a_port_taken_by_another_program_is_named_with_it(
        peers: Places, trio: list[Hardware]) -> None:
    trio[1].console("systemd-run --unit=web python3 -m http.server 7946 && "
                    "until ss -Hlnt | grep -q :7946; do sleep 0.1; done")

    lines = check(peers)

    trio[1].console("systemctl stop web")
    assert lines == ["two: tcp/7946 is taken by python3, and Swarm needs it: stop that program"]


def test_an_address_of_another_machine_is_refused(peers: Places) -> None:
    one, two, three = peers
    mistaken = replace(three, private="192.0.2.77")

    lines = check((one, two, mistaken))

    assert lines == [f"three: 192.0.2.77 isn't its address, it has {three.private}"]


def test_a_machine_without_python_is_named(peers: Places, trio: list[Hardware]) -> None:
    trio[2].console("mv /usr/bin/python3 /usr/bin/python3.away")

    lines = check(peers)

    trio[2].console("mv /usr/bin/python3.away /usr/bin/python3")
    assert lines == ["three has no python3: apt-get install python3"]
