"""All machines are inspected before the first is changed, and every problem is reported."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stack.bootstrap.inspection import look
from stack.errors import Several
from stack.inventory import Host, Inventory
from stack.inventory.settings import Settings
from stack.machines.checks import CLOUD_INIT_RESULT
from stack.swarm.fleet import Fleet, Member
from stack.swarm.membership import Membership
from tests.support.failing import error_of
from tests.support.sshd import Sshd, away_from_home, prepared

pytestmark = pytest.mark.service

NAMES = ("127.0.0.1", "localhost")
OS_RELEASE = 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'


@pytest.fixture(scope="module")
def sshds() -> Iterator[list[Sshd]]:
    """Two machines that have finished their first boot; no engine answers there."""
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
        members.append(Member(Host(name, "manager"), machine))
        ended(members[-1], "[]")
    found = Fleet(members, Inventory("production", tuple(each.host for each in members)))
    yield found
    found.close()


def ended(member: Member, errors: str) -> None:
    """Make cloud-init report these errors of the first boot."""
    member.machine.write(CLOUD_INIT_RESULT, f'{{"v1": {{"errors": {errors}}}}}')


def test_an_inspection_describes_each_machine(machines: Fleet) -> None:
    found = look(machines, Settings.load(None))
    assert [each.system.name for each in found] == ["Debian GNU/Linux 13 (trixie)"] * 2
    assert [(each.running, each.membership) for each in found] == [(False, Membership())] * 2
    assert all(abs(each.offset) < 1 for each in found)
    assert found[0].name == "127.0.0.1"


def test_a_failed_first_boot_is_reported_for_each_machine(machines: Fleet) -> None:
    for number, member in enumerate(machines.members):
        ended(member, f'["no package {number}"]')
    with pytest.raises(Several) as raised:
        look(machines, Settings.load(None))
    assert str(raised.value).splitlines() == [
        f"cloud-init on {name} failed: no package {number}: "
        "see /var/log/cloud-init-output.log on it" for number, name in enumerate(NAMES)]


def test_a_wrong_clock_is_reported(machines: Fleet, sshds: list[Sshd]) -> None:
    sshds[1].add_command("date", "echo 1000000000.0")
    line = error_of(lambda: look(machines, Settings.load(None)))
    sshds[1].add_command("date", 'exec /bin/date "$@"')
    assert re.fullmatch("localhost: its clock is [0-9]+ days behind: see timedatectl on it", line)
