"""Docker's socket has a group of the same number on every manager, or it is told why not."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stack import facts
from stack.engine import SOCKET
from stack.fleet import Member
from stack.groups import align
from stack.inventory import Node
from tests.stack.failing import error_of
from tests.stack.sshd import away_from_home, prepared

pytestmark = pytest.mark.service


@pytest.fixture
def managers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Member]]:
    """Managers whose group docker has these numbers; the second has another group, 990."""
    with ExitStack() as stack:
        stack.enter_context(away_from_home())
        yield [manager(stack, tmp_path, number) for number in request.param]


def manager(stack: ExitStack, tmp_path: Path, number: int) -> Member:
    sshd = stack.enter_context(prepared())
    with (sshd.folder / "etc/group").open("a") as groups:
        groups.write(f"docker:x:{number}:\n" + ("backup:x:990:\n" if number != 990 else ""))
    sshd.start()
    machine = sshd.machine(tmp_path / "known_hosts")
    machine.connect()
    stack.callback(machine.close)
    machine.must(["install", "--mode=660", "--group=docker", "/dev/null", str(SOCKET)])
    return Member(Node("127.0.0.1", "manager"), machine)


@pytest.mark.parametrize("managers", [(991, 991, 992)], indirect=True)
def test_the_number_is_the_first_managers(managers: list[Member]) -> None:
    assert align(managers) == "now number 991 on 127.0.0.1, as on the other managers"
    assert [facts.socket_group(each.machine, SOCKET) for each in managers] == [991] * 3
    assert [each.machine.must(["getent", "group", "docker"]) for each in managers] \
        == ["docker:x:991:\n"] * 3
    assert align(managers) == ""


@pytest.mark.parametrize("managers", [(990, 991)], indirect=True)
def test_a_number_that_is_another_groups_is_refused(managers: list[Member]) -> None:
    assert error_of(lambda: align(managers)) == (
        "the group docker is 990 on 127.0.0.1, and on 127.0.0.1 that is backup: "
        "give docker a number there that is free on all managers: groupmod")
    assert facts.socket_group(managers[1].machine, SOCKET) == 991
