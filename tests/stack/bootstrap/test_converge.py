"""Services with data are never moved, and Docker is only changed where it has to be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stack.bootstrap import converge
from stack.bootstrap.inspection import Look
from stack.images.base import BASE
from stack.inventory import Inventory
from stack.machines.facts import System
from stack.machines.local import LocalMachine
from stack.progress import step
from stack.swarm.fleet import Fleet, Member
from stack.swarm.membership import Membership
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine, reached
from tests.support.failing import error_of
from tests.support.inventories import load, node, swarm
from tests.support.targets import HERE

pytestmark = pytest.mark.unit

DEBIAN = System("debian", "13", "Debian GNU/Linux 13 (trixie)", systemd=True)


class Named(LocalMachine):
    """This machine under another name."""

    def __init__(self, name: str) -> None:
        self.name = name


def fleet_of(chosen: Inventory) -> Fleet:
    return Fleet([Member(each, Named(each.host)) for each in chosen.nodes], chosen)


def labelled(**labels: dict[str, str]) -> FakeEngine:
    """Return an engine whose nodes have these labels, by their IDs."""
    fake = FakeEngine()
    fake.kinds["nodes"] = {name: {
        "ID": name, "Description": {"Hostname": f"host-{name}"}, "Spec": {"Labels": given},
        "Status": {"Addr": f"10.0.0.{name[1:]}"}}
        for name, given in labels.items()}
    return fake


class Unconnected(FakeEngine):
    """An engine that reaches no registry."""

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        if path[0] == "distribution":
            return 500, {"message": "connection refused"}
        return super().answer(method, path, query, body)


def check(tmp_path: Path, fake: FakeEngine) -> None:
    """Check two machines, n1 and n2; the inventory places all data on the first."""
    fleet = fleet_of(load(tmp_path, swarm(node(1), node(2, "worker"))))
    with reached(fake) as engine:
        converge.check_pinned(fleet, engine)


@pytest.mark.parametrize("fake", [
    labelled(n1={}, n2={}), labelled(n1={"postgres": "true"}, n2={"edge": "true"}),
    labelled(n1={"postgres": "true", "registry": "true"}, n2={"postgres": "false"})])
def test_data_stays_where_it_is(tmp_path: Path, fake: FakeEngine) -> None:
    check(tmp_path, fake)


@pytest.mark.parametrize("label", ["postgres", "registry"])
def test_data_on_another_node_is_refused(tmp_path: Path, label: str) -> None:
    fake = labelled(n1={}, n2={label: "true"})
    assert error_of(lambda: check(tmp_path, fake)) == (
        f"{label}'s volume is on host-n2, not where the inventory has it: "
        f'give host-n2 the label {label}: "true" in the inventory; or, if its volume is lost, '
        f"start over: docker node update --label-rm {label} n2")


def test_data_on_a_node_outside_the_inventory_is_refused(tmp_path: Path) -> None:
    fake = labelled(n1={}, n2={}, n3={"postgres": "true"})
    assert error_of(lambda: check(tmp_path, fake)).startswith(
        "postgres's volume is on host-n3, not where the inventory has it: ")


@pytest.mark.usefixtures("no_commands")
def test_a_running_docker_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    look = Look(HERE, DEBIAN, installed=True, running=True, membership=Membership(), offset=0.0)
    with step("docker") as current:
        converge.ensure_docker(look, current)
    assert capsys.readouterr().out.startswith("  docker         unchanged (")


@pytest.mark.usefixtures("no_commands")
def test_no_service_is_installed_without_systemd(
        capsys: pytest.CaptureFixture[str]) -> None:
    look = Look(HERE, replace(DEBIAN, systemd=False), installed=True, running=True,
                membership=Membership(), offset=0.0)
    with step("overlay") as current:
        converge.ensure_overlay(look, current)
    assert capsys.readouterr().out.startswith("  overlay        unchanged (")


@pytest.fixture
def built(tmp_path: Path, add_command: AddCommand) -> Path:
    """The file that mmdebstrap makes when it builds a base image here."""
    add_command("mmdebstrap", f'[ "$1" = --version ] || touch {tmp_path}/built')
    add_command("docker")
    return tmp_path / "built"


@pytest.mark.parametrize(("images", "renew", "said"), [
    ({BASE: {"Id": "sha256:0123"}}, False, "unchanged"),
    ({BASE: {"Id": "sha256:0123"}}, True, "renewed with today's packages, "),
    ({}, False, "built from Debian's packages"), ({}, True, "renewed with today's packages, ")])
def test_a_base_image_is_kept_unless_it_is_missing_or_to_be_renewed(
        built: Path, capsys: pytest.CaptureFixture[str], images: dict[str, dict[str, str]],
        renew: bool, said: str) -> None:
    with reached(Unconnected({"images": images})) as engine, step("base image") as current:
        converge.ensure_base(engine, LocalMachine(), current, renew)
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"  base image     {said}")
    assert built.exists() == (said != "unchanged")


@pytest.mark.usefixtures("no_commands")
def test_docker_is_not_installed_on_an_unsupported_system() -> None:
    look = Look(HERE, replace(DEBIAN, version="11", name="Debian 11"), installed=False,
                running=False, membership=Membership(), offset=0.0)
    with step("docker") as current:
        assert error_of(lambda: converge.ensure_docker(look, current)).startswith(
            "Docker isn't installed on this machine, and Debian 11 isn't Debian 12")
