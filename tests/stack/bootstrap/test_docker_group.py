"""Docker's socket has the same group ID on every manager, or the command says why not."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stack.bootstrap.docker_group import align
from stack.inventory import Host
from stack.machines import facts
from stack.machines.docker_command import SOCKET
from stack.swarm.fleet import Member
from tests.support.failing import error_of
from tests.support.sshd import away_from_home, prepared

pytestmark = pytest.mark.service


@pytest.fixture
def managers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Member]]:
    """Managers whose group docker has these IDs; where 990 is free, the group backup has it."""
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
    return Member(Host("127.0.0.1", "manager"), machine)


@pytest.mark.parametrize("managers", [(991, 991, 992)], indirect=True)
def test_every_manager_gets_the_first_managers_group_id(managers: list[Member]) -> None:
    assert align(managers) == "GID now 991 on 127.0.0.1, as on the other managers"
    assert [facts.socket_group(each.machine, SOCKET) for each in managers] == [991] * 3
    assert [each.machine.must(["getent", "group", "docker"]) for each in managers] \
        == ["docker:x:991:\n"] * 3
    assert align(managers) == ""


@pytest.mark.parametrize("managers", [(990, 991)], indirect=True)
def test_an_id_of_another_group_is_refused(managers: list[Member]) -> None:
    assert error_of(lambda: align(managers)) == (
        "the group docker has the ID 990 on 127.0.0.1, but on 127.0.0.1 that is the ID of backup: "
        "give docker an ID that is free on all managers, with groupmod")
    assert facts.socket_group(managers[1].machine, SOCKET) == 991
