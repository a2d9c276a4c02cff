"""The stack is gone only when its last container is, on every machine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stack.commands import destroy
from stack.errors import OperatorError
from stack.machines.local import LocalMachine
from stack.swarm.fleet import Fleet, Member
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine
from tests.support.executables import answering
from tests.support.failing import error_of
from tests.support.targets import HERE, aiming_at

pytestmark = pytest.mark.unit

OF_STACK = {"com.docker.stack.namespace": "tally"}
SERVICE = {"ID": "s1", "Spec": {"Name": "tally_app", "Labels": OF_STACK}}
NETWORK = {"Id": "w1", "Name": "tally_edge", "Labels": OF_STACK}
# Lists one container as often as the file has lines.
CONTAINERS = ('case "$*" in "ps --all --quiet --filter=label=com.docker.stack.namespace=tally")',
              "    head -n 1 {0}/left; sed -i 1d {0}/left;; esac")


def engine_with(**kinds: dict[str, Any]) -> FakeEngine:
    fake = FakeEngine()
    for kind, each in kinds.items():
        fake.kinds[kind]["one"] = each
    return fake


def add_docker(add_command: AddCommand, folder: Path, *lines: str, containers: int = 0) -> Path:
    """Add a docker command with this many containers left; return the record of its calls."""
    (folder / "left").write_text("c1\n" * containers)
    add_command("docker", f'echo "$*" >> {folder}/said', *lines,
                *(line.format(folder) for line in CONTAINERS))
    return folder / "said"


def asked(said: Path, command: str) -> int:
    return sum(command in line for line in said.read_text().splitlines())


def test_where_nothing_is_deployed_nothing_is_removed(
        add_command: AddCommand, tmp_path: Path) -> None:
    said = add_docker(add_command, tmp_path)
    with aiming_at(FakeEngine()) as target:
        assert not destroy.remove_stack(target)
    assert asked(said, "stack rm") == 0


def test_the_last_container_on_each_machine_is_waited_for(
        add_command: AddCommand, tmp_path: Path) -> None:
    said = add_docker(add_command, tmp_path, containers=3)
    fleet = Fleet([HERE, Member(replace(HERE.host, host="another"), LocalMachine())])
    with aiming_at(engine_with(services=SERVICE), fleet) as target:
        assert destroy.remove_stack(target, timeout=30)
    assert asked(said, "stack rm tally") == 1
    # Three calls showed one; then each machine was asked, and neither had any.
    assert asked(said, "namespace=tally") == 3 + len(fleet.members)


@pytest.mark.parametrize(("kinds", "containers"), [
    ({"services": SERVICE}, 9), ({"services": SERVICE, "networks": NETWORK}, 0),
    # What a removal that was broken off has left.
    ({}, 9), ({"networks": NETWORK}, 0)])
def test_a_removal_that_never_ends_is_an_error(
        add_command: AddCommand, tmp_path: Path, kinds: dict[str, Any], containers: int) -> None:
    add_docker(add_command, tmp_path, containers=containers)
    with aiming_at(engine_with(**kinds)) as target:
        assert error_of(lambda: destroy.remove_stack(target, timeout=0), OperatorError) == (
            "the stack's containers or networks are still there after 0 s: "
            "docker ps --all, then ./fab destroy")


def test_a_removal_that_docker_refuses_is_an_error(
        add_command: AddCommand, tmp_path: Path) -> None:
    add_docker(add_command, tmp_path,
               'case "$*" in *"stack rm"*) echo "no leader" >&2; exit 1;; esac')
    with aiming_at(engine_with(services=SERVICE)) as target:
        assert error_of(lambda: destroy.remove_stack(target), OperatorError) \
            == "docker stack rm: no leader: ./fab destroy"


@pytest.mark.parametrize(("image", "removed"), [
    ("localhost:1/tally/app 1.4.0-57 <none>", True),
    ("localhost:1/tally/base trixie <none>", False)])
def test_the_stacks_images_are_removed_and_the_base_stays(
        add_command: AddCommand, image: str, removed: bool) -> None:
    add_command("docker", 'case "$*" in "image ls"*)', *answering(image), ";; esac")
    with aiming_at(FakeEngine()) as target:
        assert destroy.remove_images(target) is removed


def test_data_on_an_unreachable_machine_doesnt_count_as_removed(
        add_command: AddCommand, capsys: pytest.CaptureFixture[str]) -> None:
    add_command("docker")
    fleet = Fleet([Member(replace(HERE.host, labels={"edge": "true"}), LocalMachine())])
    with aiming_at(FakeEngine(), fleet) as target:
        assert error_of(lambda: destroy.remove_data(target), OperatorError) == (
            "the machine with the data volume can't be reached: "
            "./fab destroy --data when it is back")
    assert capsys.readouterr().out.startswith("  data volume    failed (")
