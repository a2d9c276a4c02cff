"""What holds data is never placed anywhere else, and Docker is only touched where it has to be."""

from dataclasses import replace
from pathlib import Path

import pytest

from stack import bootstrap
from stack.console import step
from stack.facts import System
from stack.fleet import Fleet, Member
from stack.inventory import Inventory
from stack.machine import LocalMachine
from stack.survey import Look
from stack.swarm import Membership
from tests.stack.engine_api import Engine, reached
from tests.stack.failing import error_of
from tests.stack.inventories import load, node, swarm
from tests.stack.targets import HERE

pytestmark = pytest.mark.unit

DEBIAN = System("debian", "13", "Debian GNU/Linux 13 (trixie)", systemd=True)


class Named(LocalMachine):
    """A machine of an inventory, as far as messages tell of it."""

    def __init__(self, name: str) -> None:
        self.name = name


def fleet_of(chosen: Inventory) -> Fleet:
    return Fleet([Member(each, Named(each.host)) for each in chosen.nodes], chosen)


def labelled(**labels: dict[str, str]) -> Engine:
    """Return an engine that knows nodes with these labels, by their ids."""
    engine = Engine()
    engine.kinds["nodes"] = {name: {
        "ID": name, "Description": {"Hostname": f"host-{name}"}, "Spec": {"Labels": given},
        "Status": {"Addr": f"10.0.0.{name[1:]}"}}
        for name, given in labels.items()}
    return engine


def check(tmp_path: Path, engine: Engine) -> None:
    """Check two machines, n1 and n2, of which the inventory has the first hold all data."""
    fleet = fleet_of(load(tmp_path, swarm(node(1), node(2, "worker"))))
    with reached(engine) as client:
        bootstrap.check_pinned(fleet, client)


@pytest.mark.parametrize("engine", [
    labelled(n1={}, n2={}), labelled(n1={"postgres": "true"}, n2={"edge": "true"}),
    labelled(n1={"postgres": "true", "registry": "true"}, n2={"postgres": "false"})])
def test_data_stays_where_it_is(tmp_path: Path, engine: Engine) -> None:
    check(tmp_path, engine)


@pytest.mark.parametrize("label", ["postgres", "registry"])
def test_data_is_not_looked_for_on_another_node(tmp_path: Path, label: str) -> None:
    engine = labelled(n1={}, n2={label: "true"})
    assert error_of(lambda: check(tmp_path, engine)) == (
        f"{label}'s volume is on host-n2, not where the inventory has it: "
        f'give host-n2 the label {label}: "true" in the inventory; or, if its volume is lost, '
        f"begin anew: docker node update --label-rm {label} n2")


def test_data_on_a_node_that_the_inventory_lacks_is_not_forgotten(tmp_path: Path) -> None:
    engine = labelled(n1={}, n2={}, n3={"postgres": "true"})
    assert error_of(lambda: check(tmp_path, engine)).startswith(
        "postgres's volume is on host-n3, not where the inventory has it: ")


@pytest.mark.usefixtures("no_commands")
def test_docker_that_runs_already_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    look = Look(HERE, DEBIAN, installed=True, running=True, membership=Membership(), offset=0.0)
    with step("docker") as current:
        bootstrap.ensure_docker(look, current)
    assert capsys.readouterr().out.startswith("  docker         unchanged (")


@pytest.mark.usefixtures("no_commands")
def test_no_service_is_brought_where_there_is_no_systemd(
        capsys: pytest.CaptureFixture[str]) -> None:
    look = Look(HERE, replace(DEBIAN, systemd=False), installed=True, running=True,
                membership=Membership(), offset=0.0)
    with step("overlay") as current:
        bootstrap.ensure_overlay(look, current)
    assert capsys.readouterr().out.startswith("  overlay        unchanged (")


@pytest.mark.usefixtures("no_commands")
def test_docker_is_not_installed_where_nobody_tried_it() -> None:
    look = Look(HERE, replace(DEBIAN, version="11", name="Debian 11"), installed=False,
                running=False, membership=Membership(), offset=0.0)
    with step("docker") as current:
        assert error_of(lambda: bootstrap.ensure_docker(look, current)).startswith(
            "Docker isn't installed on this machine, and Debian 11 isn't Debian 12")
