"""Machines are reached in parallel, and another manager replaces one that is lost."""

import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from stack import waiting
from stack.errors import OperatorError, Refused, Several
from stack.inventory import Host, Inventory, settings
from stack.machines.local import LocalMachine
from stack.machines.machine import CommandFailed
from stack.machines.ssh import Gone, RemoteMachine
from stack.swarm import fleet
from stack.swarm.fleet import AnyManager, Fleet, Member, builders, connect, holder
from tests.support.engine_api import FakeEngine, listening
from tests.support.failing import error_of
from tests.support.ports import free_port
from tests.support.sshd import Sshd, away_from_home, running

pytestmark = pytest.mark.service

# Talks to an engine on a port of this machine, until the engine closes the connection.
DIAL_STDIO = "exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&0 >&3 2>&- & exec cat <&3'"
ONE, TWO, WORKER = Host("one", "manager"), Host("two", "manager"), Host("worker", "worker")


@pytest.fixture(scope="module")
def sshds() -> Iterator[tuple[Sshd, Sshd]]:
    with away_from_home(), running() as one, running() as two:
        configure({"one": one.port, "two": two.port, "worker": two.port, "off": free_port(),
                   "gone": free_port()}, one.key)
        two.authorize(one.key.with_suffix(".pub"))
        yield one, two


def configure(ports: dict[str, int], key: Path) -> None:
    """Write an ~/.ssh/config with names for ports of this machine."""
    ssh = Path(os.environ["HOME"], ".ssh")
    ssh.mkdir()
    (ssh / "config").write_text("".join(
        f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {key}\n"
        for name, port in ports.items()))


def reached(tmp_path: Path, *nodes: Host, partly: bool = False) -> Fleet:
    return connect(Inventory("production", nodes), tmp_path / "inventory.yml", accept=True,
                   partly=partly, patience=0)


@pytest.fixture
def both(sshds: tuple[Sshd, Sshd], tmp_path: Path) -> Iterator[Fleet]:
    found = reached(tmp_path, ONE, TWO)
    yield found
    found.close()


def test_machines_are_in_the_inventorys_order(
        sshds: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    found = reached(tmp_path, WORKER, TWO, ONE)
    assert [member.name for member in found.members] == ["worker", "two", "one"]
    assert [member.name for member in found.managers] == ["two", "one"]
    assert (found.several, found.local, found.missing) == (True, False, {})
    assert [fleet.address(member.machine) for member in found.members] == ["127.0.0.1"] * 3
    assert (tmp_path / "known_hosts").exists()
    found.close()


def test_a_step_runs_on_each_machine_or_on_some(both: Fleet) -> None:
    assert both.each("name", lambda member, step: member.name) == ["one", "two"]
    assert both.each("name", lambda member, step: member.name, both.members[1:]) == ["two"]


def test_failures_on_several_machines_are_all_reported(both: Fleet) -> None:
    with pytest.raises(Several) as raised:
        both.each("test", lambda member, step: member.machine.must(["sh", "-c", "echo no; false"]))
    assert str(raised.value).splitlines() == ["sh -c echo no; false … ended with 1: no"] * 2


def test_a_missing_machine_is_an_error(
        sshds: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    line = error_of(lambda: reached(tmp_path, ONE, Host("off", "worker")))
    assert line.startswith("off: no connection to deploy@127.0.0.1:")


def test_all_missing_machines_are_named(sshds: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    with pytest.raises(Several) as raised:
        reached(tmp_path, Host("off", "worker"), ONE, Host("gone", "worker"))
    assert sorted(line.partition(":")[0] for line in str(raised.value).splitlines()) \
        == ["gone", "off"]


def test_work_that_doesnt_need_every_machine_continues(
        sshds: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    off = Host("off", "manager")
    found = reached(tmp_path, off, ONE, partly=True)
    assert [member.name for member in found.members] == ["one"]
    assert list(found.missing) == [off]
    assert isinstance(found.missing[off], Refused)
    assert found.several
    found.close()


def test_without_a_manager_nothing_continues(
        sshds: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    line = error_of(lambda: reached(tmp_path, Host("off", "manager"), WORKER, partly=True))
    assert line.startswith("off: no connection")


def test_an_unknown_host_key_is_refused_without_a_terminal(
        sshds: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    with pytest.raises(Several) as raised:
        connect(Inventory("production", (ONE, TWO)), tmp_path / "inventory.yml", accept=False,
                partly=False, patience=0)
    lines = str(raised.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] \
        == [f"[127.0.0.1]:{sshd.port}" for sshd in sshds]
    assert all("isn't known here" in line for line in lines)


def test_closing_ends_every_connection(both: Fleet) -> None:
    machines = [member.machine for member in both.members]
    both.close()
    assert [machine.alive for machine in machines if isinstance(machine, RemoteMachine)] \
        == [False, False]


def test_without_an_inventory_it_is_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "inventory_path", lambda: None)
    found = fleet.reach()
    assert [member.name for member in found.members] == ["this machine"]
    assert (found.local, found.several, found.members[0].private) == (True, False, "")
    assert fleet.address(found.members[0].machine) == "127.0.0.1"
    assert AnyManager(found.managers).docker_host == LocalMachine.docker_host


def labelled(name: str, **labels: str) -> Member:
    return Member(Host(name, "manager", labels=labels), LocalMachine())


def test_images_are_built_where_they_are_kept() -> None:
    one, two, three = labelled("one"), labelled("two", registry="true"), labelled("three")
    assert builders(Fleet([one, two, three])) == [two, one, three]


def test_the_holder_of_a_label_is_found() -> None:
    one, two = labelled("one", postgres="false"), labelled("two", postgres="true")
    assert holder(Fleet([one, two]), "postgres") is two
    assert holder(Fleet([one]), "postgres") is None


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[tuple[Sshd, Sshd, AnyManager]]:
    """Two managers that a test may break, and an AnyManager over both."""
    with away_from_home(), running() as one, running() as two:
        configure({"one": one.port, "two": two.port}, one.key)
        two.authorize(one.key.with_suffix(".pub"))
        found = reached(tmp_path, ONE, TWO)
        yield one, two, AnyManager(found.managers)
        found.close()


def test_the_first_manager_is_the_one_that_answers(both: Fleet, tmp_path: Path) -> None:
    manager = AnyManager(both.managers)
    assert (manager.name, manager.must(["echo", "in"])) == ("one", "in\n")
    with manager.holding(tmp_path) as there, manager.exclusively(str(tmp_path / "lock")):
        assert manager.run(["test", "-d", str(there)]).ok


def test_commands_use_the_next_manager_after_one_is_lost(
        fragile: tuple[Sshd, Sshd, AnyManager]) -> None:
    one, _, manager = fragile
    one.cut()
    assert error_of(lambda: manager.run(["true"]), Gone).startswith(
        "lost contact with one while running true")
    assert (manager.name, manager.must(["echo", "in"])) == ("two", "in\n")


def test_a_manager_with_a_silent_engine_is_asked_last(both: Fleet) -> None:
    manager = AnyManager(both.managers)
    manager.pass_over()
    assert (manager.name, manager.must(["echo", "in"])) == ("two", "in\n")


def test_losing_every_manager_is_reported(
        fragile: tuple[Sshd, Sshd, AnyManager]) -> None:
    for sshd in fragile[:2]:
        sshd.cut()
        assert error_of(lambda: fragile[2].run(["true"]), Gone).endswith("the same command again")
    assert error_of(lambda: fragile[2].run(["true"]), Gone) \
        == "lost contact with every manager: ./fab status when they are back"


def test_the_engine_api_uses_another_manager_when_one_is_lost(
        fragile: tuple[Sshd, Sshd, AnyManager]) -> None:
    one, two, manager = fragile
    with listening(FakeEngine()) as direct:
        for sshd in (one, two):
            sshd.add_command("docker", DIAL_STDIO.format(port=direct.api.base_url.split(":")[-1]))
        client = docker.DockerClient(base_url=manager.docker_host, version="1.41", timeout=10)
        client.configs.create(name="before", data=b"")
        one.cut()
        # A request on its way while the connection breaks fails, as with any keep-alive.
        assert waiting.until(lambda: manager.name, 20, done=lambda name: name == "two") == "two"
        client.configs.create(name="after", data=b"")
        assert [config.name for config in client.configs.list()] == ["before", "after"]
    assert manager.name == "two"


def test_a_failed_command_doesnt_change_the_manager(both: Fleet) -> None:
    manager = AnyManager(both.managers)
    with pytest.raises(CommandFailed):
        manager.must(["false"])
    assert manager.name == "one"


def test_a_single_machines_error_is_unchanged(both: Fleet) -> None:
    with pytest.raises(OperatorError) as raised:
        both.each("test", lambda member, step: member.machine.must(
            ["false" if member.name == "two" else "true"]))
    assert type(raised.value) is CommandFailed


def test_a_laptop_without_ssh_is_told_once(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert error_of(lambda: reached(tmp_path, ONE, TWO, WORKER)) == (
        "there is no ssh command here: install OpenSSH's client, on Debian openssh-client")
