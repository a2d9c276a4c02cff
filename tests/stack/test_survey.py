"""All machines are looked at before the first is changed, and every complaint is told."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stack.errors import Several
from stack.fleet import Fleet, Member
from stack.inventory import Inventory, Node
from stack.preflight import CLOUD_INIT_RESULT
from stack.settings import Settings
from stack.survey import look
from stack.swarm import Membership
from tests.stack.failing import error_of
from tests.stack.sshd import Sshd, away_from_home, prepared

pytestmark = pytest.mark.service

NAMES = ("127.0.0.1", "localhost")
OS_RELEASE = 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'


@pytest.fixture(scope="module")
def sshds() -> Iterator[list[Sshd]]:
    """Two machines whose first boot is over and on which no engine answers."""
    with ExitStack() as stack:
        stack.enter_context(away_from_home())
        yield [booted(stack) for _ in range(2)]


def booted(stack: ExitStack) -> Sshd:
    sshd = stack.enter_context(prepared())
    (sshd.folder / "etc/os-release").write_text(OS_RELEASE)
    sshd.add_command("docker", "exit 1")
    sshd.start()
    return sshd


@pytest.fixture
def machines(sshds: list[Sshd], tmp_path: Path) -> Iterator[Fleet]:
    members = []
    for sshd, name in zip(sshds, NAMES):
        machine = sshd.machine(tmp_path / "known_hosts", host=name)
        machine.connect()
        members.append(Member(Node(name, "manager"), machine))
        ended(members[-1], "[]")
    found = Fleet(members, Inventory("production", tuple(each.node for each in members)))
    yield found
    found.close()


def ended(member: Member, errors: str) -> None:
    """Let the machine's first boot have ended with these errors."""
    member.machine.write(CLOUD_INIT_RESULT, f'{{"v1": {{"errors": {errors}}}}}')


def test_a_look_tells_what_a_machine_is(machines: Fleet) -> None:
    found = look(machines, Settings.load(None))
    assert [each.system.name for each in found] == ["Debian GNU/Linux 13 (trixie)"] * 2
    assert [(each.running, each.membership) for each in found] == [(False, Membership())] * 2
    assert all(abs(each.offset) < 1 for each in found)
    assert found[0].name == "127.0.0.1"


def test_a_first_boot_that_failed_is_told_of_each_machine(machines: Fleet) -> None:
    for number, member in enumerate(machines.members):
        ended(member, f'["no package {number}"]')
    with pytest.raises(Several) as raised:
        look(machines, Settings.load(None))
    assert str(raised.value).splitlines() == [
        f"cloud-init on {name} failed: no package {number}: "
        "see /var/log/cloud-init-output.log on it" for number, name in enumerate(NAMES)]


def test_a_clock_that_is_off_is_told(machines: Fleet, sshds: list[Sshd]) -> None:
    sshds[1].add_command("date", "echo 1000000000.0")
    line = error_of(lambda: look(machines, Settings.load(None)))
    sshds[1].add_command("date", 'exec /bin/date "$@"')
    assert re.fullmatch("localhost: its clock is [0-9]+ days behind: see timedatectl on it", line)
