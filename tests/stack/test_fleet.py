"""An inventory's machines are reached side by side, and another manager takes over from one."""

import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from stack import fleet, settings
from stack.errors import OperatorError, Refused, Several
from stack.fleet import AnyManager, Fleet, Member, builders, connect, holder
from stack.inventory import Inventory, Node
from stack.machine import CommandFailed, LocalMachine
from stack.remote import Gone, RemoteMachine
from tests.stack.engine_api import Engine
from tests.stack.engine_api import reached as reached_engine
from tests.stack.failing import error_of
from tests.stack.sshd import Sshd, away_from_home, free_port, running

pytestmark = pytest.mark.service

# Speaks to an engine on a port of this computer; ends when that has said everything.
DIAL_STDIO = "exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&0 >&3 2>&- & exec cat <&3'"
ONE, TWO, WORKER = Node("one", "manager"), Node("two", "manager"), Node("worker", "worker")


@pytest.fixture(scope="module")
def sshds() -> Iterator[tuple[Sshd, Sshd]]:
    with away_from_home(), running() as one, running() as two:
        configure({"one": one.port, "two": two.port, "worker": two.port, "off": free_port(),
                   "gone": free_port()}, one.key)
        two.authorize(one.key.with_suffix(".pub"))
        yield one, two


def configure(ports: dict[str, int], key: Path) -> None:
    """Write the operator's ~/.ssh/config: names for ports of this computer."""
    ssh = Path(os.environ["HOME"], ".ssh")
    ssh.mkdir()
    (ssh / "config").write_text("".join(
        f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {key}\n"
        for name, port in ports.items()))


def reached(tmp_path: Path, *nodes: Node, partly: bool = False) -> Fleet:
    return connect(Inventory("production", nodes), tmp_path / "inventory.yml", accept=True,
                   partly=partly, patience=0)


@pytest.fixture
def both(sshds: tuple[Sshd, Sshd], tmp_path: Path) -> Iterator[Fleet]:
    found = reached(tmp_path, ONE, TWO)
    yield found
    found.close()


def test_every_machine_is_there_in_the_inventorys_order(
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


def test_what_fails_on_several_machines_is_told_of_each(both: Fleet) -> None:
    with pytest.raises(Several) as raised:
        both.each("test", lambda member, step: member.machine.must(["sh", "-c", "echo no; false"]))
    assert str(raised.value).splitlines() == ["sh -c echo no; false … ended with 1: no"] * 2


def test_a_machine_that_is_missing_is_an_error(
        sshds: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    line = error_of(lambda: reached(tmp_path, ONE, Node("off", "worker")))
    assert line.startswith("off: no connection to deploy@127.0.0.1:")


def test_all_that_are_missing_are_named(sshds: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    with pytest.raises(Several) as raised:
        reached(tmp_path, Node("off", "worker"), ONE, Node("gone", "worker"))
    assert sorted(line.partition(":")[0] for line in str(raised.value).splitlines()) \
        == ["gone", "off"]


def test_work_that_can_do_without_a_machine_goes_on(
        sshds: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    off = Node("off", "manager")
    found = reached(tmp_path, off, ONE, partly=True)
    assert [member.name for member in found.members] == ["one"]
    assert list(found.missing) == [off]
    assert isinstance(found.missing[off], Refused)
    assert found.several
    found.close()


def test_without_any_manager_nothing_goes_on(
        sshds: tuple[Sshd, Sshd], tmp_path: Path) -> None:
    line = error_of(lambda: reached(tmp_path, Node("off", "manager"), WORKER, partly=True))
    assert line.startswith("off: no connection")


def test_a_new_machine_is_refused_where_nobody_can_be_asked(
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
    return Member(Node(name, "manager", labels=labels), LocalMachine())


def test_images_are_built_where_they_are_kept() -> None:
    one, two, three = labelled("one"), labelled("two", registry="true"), labelled("three")
    assert builders(Fleet([one, two, three])) == [two, one, three]


def test_the_holder_of_a_label_is_found() -> None:
    one, two = labelled("one", postgres="false"), labelled("two", postgres="true")
    assert holder(Fleet([one, two]), "postgres") is two
    assert holder(Fleet([one]), "postgres") is None


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[tuple[Sshd, Sshd, AnyManager]]:
    """Two managers that a test may harm, and whichever of them answers."""
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


def test_a_command_under_way_is_lost_and_the_next_goes_to_the_next_manager(
        fragile: tuple[Sshd, Sshd, AnyManager]) -> None:
    one, _, manager = fragile
    one.cut()
    assert error_of(lambda: manager.run(["true"]), Gone).startswith(
        "one went away in the middle of true")
    assert (manager.name, manager.must(["echo", "in"])) == ("two", "in\n")


def test_a_manager_whose_engine_says_nothing_is_asked_last(both: Fleet) -> None:
    manager = AnyManager(both.managers)
    manager.pass_over()
    assert (manager.name, manager.must(["echo", "in"])) == ("two", "in\n")


def test_without_any_manager_left_it_is_told(
        fragile: tuple[Sshd, Sshd, AnyManager]) -> None:
    for sshd in fragile[:2]:
        sshd.cut()
        assert error_of(lambda: fragile[2].run(["true"]), Gone).endswith("the same command again")
    assert error_of(lambda: fragile[2].run(["true"]), Gone) \
        == "no manager answers any more: ./fab status when they are back"


def test_the_engines_api_goes_through_another_manager_when_one_has_gone(
        fragile: tuple[Sshd, Sshd, AnyManager]) -> None:
    one, two, manager = fragile
    with reached_engine(Engine()) as direct:
        for sshd in (one, two):
            sshd.add_command("docker", DIAL_STDIO.format(port=direct.api.base_url.split(":")[-1]))
        client = docker.DockerClient(base_url=manager.docker_host, version="1.41", timeout=10)
        client.configs.create(name="before", data=b"")
        one.cut()
        client.configs.create(name="after", data=b"")
        assert [config.name for config in client.configs.list()] == ["before", "after"]
    assert manager.name == "two"


def test_a_failed_command_is_no_reason_to_change_the_manager(both: Fleet) -> None:
    manager = AnyManager(both.managers)
    with pytest.raises(CommandFailed):
        manager.must(["false"])
    assert manager.name == "one"


def test_an_error_of_one_machine_is_itself(both: Fleet) -> None:
    with pytest.raises(OperatorError) as raised:
        both.each("test", lambda member, step: member.machine.must(
            ["false" if member.name == "two" else "true"]))
    assert type(raised.value) is CommandFailed
