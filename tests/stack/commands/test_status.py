"""Status prints one line for each problem, and shows every node."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stack import console
from stack.commands import report, status
from stack.commands.status import RUNNING, Row
from stack.errors import OperatorError, Refused, raise_all
from stack.images.base import Base
from stack.machines.local import LocalMachine
from stack.swarm.fleet import Fleet, Member
from stack.swarm.service_state import Progress
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine
from tests.support.inventories import load, node, swarm
from tests.support.targets import HERE, aiming_at

pytestmark = pytest.mark.unit

GOOD = Row("app", "2/2", "app:1", RUNNING)


@pytest.fixture(autouse=True)
def docker(add_command: AddCommand) -> None:
    add_command("docker")


def complaint(rows: list[Row], serving: dict[str, str], *missing: OperatorError) -> str:
    """Return what is printed at the end; there must be a problem."""
    fleet = Fleet([HERE], missing={HERE.host: error for error in missing})
    with aiming_at(FakeEngine(), fleet) as target, pytest.raises(OperatorError) as raised:
        status.complain(target, rows, serving, "1.4.0+57")
    assert raised.value.code == 1
    return str(raised.value)


NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(("age", "said"), [
    (timedelta(hours=2), "Debian 13, made today"), (timedelta(days=1), "Debian 13, 1 day old"),
    (timedelta(days=12, hours=3), "Debian 13, 12 days old"),
    (timedelta(days=30), "Debian 13, 30 days old"),
    (timedelta(days=30, seconds=1),
     "Debian 13, 30 days old; to update it: ./fab bootstrap --renew-base deploy"),
    (timedelta(days=45),
     "Debian 13, 45 days old; to update it: ./fab bootstrap --renew-base deploy")])
def test_the_base_images_age_is_shown_and_an_old_one_can_be_renewed(
        age: timedelta, said: str) -> None:
    assert status.describe(Base("sha256:0123", "", NOW - age), NOW) == said


def test_a_missing_base_image_is_shown_with_the_remedy() -> None:
    assert status.describe(None, NOW) == "missing: ./fab bootstrap makes it"
    assert status.facts(None, NOW) is None


def test_a_report_has_the_base_images_age_and_renewal() -> None:
    made = NOW - timedelta(days=12)
    assert status.facts(Base("sha256:0123", "20260319120000", made), NOW) == {
        "system": "Debian 13", "renewal": "20260319120000", "days": 12}


def report_of(capsys: pytest.CaptureFixture[str], *errors: OperatorError) -> tuple[int, str]:
    """Return the exit code and the outcome in the report of a status that ends like this."""
    with suppress(OperatorError), report.printed("status", True, status.OUTCOMES):
        raise_all(errors)
    said = json.loads(capsys.readouterr().out)
    return said["exit"], said["outcome"]


def test_a_report_says_whether_all_is_well(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # A report leaves stdout to itself for the rest of the program.
    monkeypatch.setattr(console, "OUT", console.OUT)
    assert report_of(capsys) == (0, "all is well")
    assert report_of(capsys, Refused("192.0.2.13 can't be reached")) == (1, "not all is well")


def test_nothing_is_reported_when_all_is_well() -> None:
    with aiming_at(FakeEngine()) as target:
        status.complain(target, [GOOD], {"192.0.2.11": "1.4.0+57"}, "1.4.0+57")


def test_each_unsettled_service_is_a_line() -> None:
    rows = [GOOD, Row("postgres", "-", "-", "missing"), Row("traefik", "0/1", "t:1", "paused")]
    assert complaint(rows, {"192.0.2.11": "1.4.0+57"}).splitlines() == [
        "not as wanted: postgres (missing): docker service ps --no-trunc tally_postgres",
        "not as wanted: traefik (paused): docker service ps --no-trunc tally_traefik"]


def test_each_node_that_serves_another_version_is_a_line() -> None:
    serving = {"192.0.2.11": "1.4.0+57", "192.0.2.12": "no version (ConnectionError)"}
    assert complaint([GOOD], serving) == (
        "192.0.2.12 serves no version (ConnectionError) instead of the proven release: "
        "./fab deploy")


def test_each_unreachable_machine_is_a_line() -> None:
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


def test_every_node_is_shown_even_outside_the_inventory(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake, chosen = FakeEngine(), load(tmp_path, swarm(node(1), node(2, "worker")))
    fake.kinds["nodes"] = {each["ID"]: each for each in (
        api_node("n3", "10.0.0.3", "manager"), api_node("n2", "10.0.0.2", "worker", edge="false"),
        api_node("n1", "10.0.0.1", "manager", leader=True, postgres="true", edge="true"))}
    fleet = Fleet([Member(each, LocalMachine()) for each in chosen.nodes], chosen)
    with aiming_at(fake, fleet) as target:
        console.table(status.node_table(target))
    # Both machines of the inventory are this one here.
    assert sorted(line.split() for line in capsys.readouterr().out.splitlines()[1:]) == [
        ["host-n1", "127.0.0.1", "leader", "ready", "active", "edge,", "postgres"],
        ["host-n2", "127.0.0.1", "worker", "ready", "active"],
        ["host-n3", "-", "manager", "ready", "active"]]
