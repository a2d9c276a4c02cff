"""A machine's firewall admits the other nodes, and removes them if they can't reach it."""

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from stack.bootstrap import firewall, port_check
from stack.bootstrap.firewall import APPLY, FILE, HEADER, introduce, text
from stack.bootstrap.inspection import Look
from stack.errors import Several
from stack.inventory import Host, Inventory
from stack.machines.checks import FIREWALL
from stack.machines.facts import System
from stack.machines.ssh import RemoteMachine
from stack.swarm.fleet import Fleet, Member
from stack.swarm.membership import Membership
from tests.support.failing import error_of
from tests.support.sshd import away_from_home, running

pytestmark = pytest.mark.service

LET_IN = "/run/let-in"
SYSTEM = System("debian", "13", "Debian GNU/Linux 13 (trixie)", True)


def test_the_file_has_one_address_per_line_in_order() -> None:
    assert text(["192.0.2.2", "", "192.0.2.1"]) == f"{HEADER}192.0.2.1\n192.0.2.2\n"


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ExitStack() as stack:
        stack.enter_context(away_from_home())
        place = tmp_path_factory.mktemp("pinned") / "known_hosts"
        nodes = [Host("127.0.0.1", "manager", IPv4Address(f"192.0.2.{number}"))
                 for number in (1, 2)]
        yield Fleet([Member(node, one_more(stack, place)) for node in nodes],
                    Inventory("production", tuple(nodes)))


def one_more(stack: ExitStack, known_hosts: Path) -> RemoteMachine:
    machine = stack.enter_context(running()).machine(known_hosts)
    machine.connect()
    stack.callback(machine.close)
    return machine


@pytest.fixture
def machines(reached: Fleet) -> Fleet:
    """Two machines with the firewall that cloud-init makes; it records what it admits."""
    for member in reached.members:
        member.machine.run(["rm", "-f", LET_IN])
        member.machine.write(FIREWALL, "table inet tally {}\n")
        member.machine.write(FILE, HEADER)
        member.machine.write(APPLY, f"#!/bin/sh\ncat {FILE} >> {LET_IN}\n", mode="0755")
    return reached


def looks(machines: Fleet) -> list[Look]:
    return [Look(member, SYSTEM, True, True, Membership(), 0.0) for member in machines.members]


def files(machines: Fleet) -> list[str | None]:
    return [member.machine.read(FILE) for member in machines.members]


def test_each_firewall_admits_the_others_and_is_reloaded(
        machines: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_check, "check", lambda places: [])
    for times in (1, 2):
        introduce(machines, looks(machines))
        assert files(machines) == [f"{HEADER}192.0.2.2\n", f"{HEADER}192.0.2.1\n"]
        # Also if nothing is new: an earlier run may have been interrupted before it was read.
        assert machines.members[0].machine.read(LET_IN) == f"{HEADER}192.0.2.2\n" * times


def test_firewalls_of_unreachable_machines_are_closed_again(
        machines: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_check, "check", lambda places: ["one doesn't reach two"])
    assert error_of(lambda: introduce(machines, looks(machines))) == "one doesn't reach two"
    assert files(machines) == [HEADER, HEADER]
    assert machines.members[0].machine.read(LET_IN) == f"{HEADER}192.0.2.2\n{HEADER}"


def test_a_failing_firewall_keeps_no_other_open(machines: Fleet) -> None:
    for member in machines.members:
        member.machine.write(APPLY, "#!/bin/sh\necho no table\nexit 1\n", mode="0755")
    with pytest.raises(Several) as raised:
        introduce(machines, looks(machines))
    assert str(raised.value).splitlines() == [f"{APPLY} … ended with 1: no table"] * 2
    assert files(machines) == [HEADER, HEADER]


def test_a_machine_without_our_firewall_is_left_alone(
        machines: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_check, "check", lambda places: [])
    machines.members[0].machine.must(["rm", FIREWALL])
    introduce(machines, looks(machines))
    assert files(machines) == [HEADER, f"{HEADER}192.0.2.1\n"]


def test_the_inventory_decides_what_each_machine_is_asked(
        machines: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[port_check.Peer] = []

    def check(places: list[port_check.Peer]) -> list[str]:
        asked.extend(places)
        return ["one doesn't reach two", "two doesn't reach one"]
    monkeypatch.setattr(port_check, "check", check)
    assert list(map(str, firewall.broken(machines, looks(machines)))) == check([])
    assert [(place.private, place.role, place.joined, place.registry) for place in asked] \
        == [("192.0.2.1", "manager", False, False), ("192.0.2.2", "manager", False, False)]
