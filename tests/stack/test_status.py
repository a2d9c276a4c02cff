"""Whatever isn't as it should be is a line of its own, and the nodes are all shown."""

from pathlib import Path
from typing import Any

import pytest

from stack import console, status
from stack.errors import OperatorError, Refused
from stack.fleet import Fleet, Member
from stack.machine import LocalMachine
from stack.progress import Progress
from stack.status import RUNNING, Row
from tests.stack.conftest import AddCommand
from tests.stack.engine_api import Engine
from tests.stack.inventories import load, node, swarm
from tests.stack.targets import HERE, aiming_at

pytestmark = pytest.mark.unit

GOOD = Row("app", "2/2", "app:1", RUNNING)


@pytest.fixture(autouse=True)
def docker(add_command: AddCommand) -> None:
    add_command("docker")


def complaint(rows: list[Row], serving: dict[str, str], *missing: OperatorError) -> str:
    """Return what is printed at the end; there must be something amiss."""
    fleet = Fleet([HERE], missing={HERE.node: error for error in missing})
    with aiming_at(Engine(), fleet) as target, pytest.raises(OperatorError) as raised:
        status.complain(target, rows, serving, "1.4.0+57")
    assert raised.value.code == 1
    return str(raised.value)


def test_where_all_is_well_nothing_is_complained_of() -> None:
    with aiming_at(Engine()) as target:
        status.complain(target, [GOOD], {"192.0.2.11": "1.4.0+57"}, "1.4.0+57")


def test_each_service_that_isnt_as_wanted_is_a_line() -> None:
    rows = [GOOD, Row("postgres", "-", "-", "missing"), Row("traefik", "0/1", "t:1", "paused")]
    assert complaint(rows, {"192.0.2.11": "1.4.0+57"}).splitlines() == [
        "not as wanted: postgres (missing): docker service ps --no-trunc tally_postgres",
        "not as wanted: traefik (paused): docker service ps --no-trunc tally_traefik"]


def test_each_node_that_serves_something_else_is_a_line() -> None:
    serving = {"192.0.2.11": "1.4.0+57", "192.0.2.12": "no version (ConnectionError)"}
    assert complaint([GOOD], serving) == (
        "192.0.2.12 serves no version (ConnectionError) instead of the proven release: "
        "./fab deploy")


def test_each_machine_that_cant_be_reached_is_a_line() -> None:
    missing = Refused("192.0.2.13 can't be reached")
    rows = [Row("app", "1/2", "app:1", "not settled")]
    assert complaint(rows, {}, missing).splitlines() == [
        "192.0.2.13 can't be reached",
        "not as wanted: app (not settled): docker service ps --no-trunc tally_app"]


def test_a_service_that_has_gone_is_shown_as_missing() -> None:
    assert Row.of(Progress("app", 0, 0), None) == Row("app", "-", "-", "missing")


def api_node(key: str, address: str, role: str, *, leader: bool = False,
             **labels: str) -> dict[str, Any]:
    return {"ID": key, "Description": {"Hostname": f"host-{key}"},
            "Status": {"State": "ready", "Addr": address},
            "Spec": {"Role": role, "Availability": "active", "Labels": labels or None},
            "ManagerStatus": {"Leader": leader} if role == "manager" else None}


def test_every_node_is_shown_also_one_that_the_inventory_lacks(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine, chosen = Engine(), load(tmp_path, swarm(node(1), node(2, "worker")))
    engine.kinds["nodes"] = {each["ID"]: each for each in (
        api_node("n3", "10.0.0.3", "manager"), api_node("n2", "10.0.0.2", "worker", edge="false"),
        api_node("n1", "10.0.0.1", "manager", leader=True, postgres="true", edge="true"))}
    fleet = Fleet([Member(each, LocalMachine()) for each in chosen.nodes], chosen)
    with aiming_at(engine, fleet) as target:
        console.table(status.node_table(target))
    # Both machines of the inventory are this one here.
    assert sorted(line.split() for line in capsys.readouterr().out.splitlines()[1:]) == [
        ["host-n1", "127.0.0.1", "leader", "ready", "active", "edge,", "postgres"],
        ["host-n2", "127.0.0.1", "worker", "ready", "active"],
        ["host-n3", "-", "manager", "ready", "active"]]
