"""A deploy reports an interruption, the changed services and the site's address."""

from pathlib import Path

import pytest

from stack.errors import RestoreFailed, UpdateFailed
from stack.machines.local import LocalMachine
from stack.release import interruption, rollout, update, verdict
from stack.release.interruption import reporting_interruption
from stack.state import lock
from stack.state.releases import Record
from stack.swarm.fleet import Fleet, Member
from stack.swarm.stackfile import Stack
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine, reached
from tests.support.inventories import ONE, load
from tests.support.targets import aiming_at

pytestmark = pytest.mark.unit

INTERRUPTED = "interrupted in the middle of the update: ./fab status\n"


@pytest.mark.parametrize(("interruption", "code"), [
    (KeyboardInterrupt(), 130), (SystemExit(143), 143), (SystemExit(129), 129)])
def test_an_interrupted_update_says_what_it_leaves(
        capsys: pytest.CaptureFixture[str], interruption: BaseException, code: int) -> None:
    with pytest.raises(SystemExit) as raised, reporting_interruption("./fab status"):
        raise interruption
    assert (raised.value.code, capsys.readouterr().out) == (code, INTERRUPTED)


def test_an_update_whose_output_is_closed_needs_a_person() -> None:
    with pytest.raises(SystemExit) as raised, interruption.reporting_interruption("./fab status"):
        raise SystemExit(1)
    assert raised.value.code == 5


def test_an_update_ended_by_a_bug_needs_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RestoreFailed) as raised, \
            interruption.reporting_interruption("./fab status"):
        raise KeyError("Spec")
    assert str(raised.value) == ("the update hit a bug: KeyError: 'Spec': "
                                 "./fab status")
    assert "Traceback" in capsys.readouterr().err


def test_a_failed_update_is_not_an_interrupted_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UpdateFailed), interruption.reporting_interruption("./fab status"):
        raise UpdateFailed("the update failed")
    assert capsys.readouterr().out == ""


def test_an_update_that_loses_contact_with_the_swarm_needs_a_person() -> None:
    fake = FakeEngine()
    with reached(fake) as engine, lock.hold(engine) as held:
        fake.failing = True
        with pytest.raises(RestoreFailed) as raised:
            interruption.require_still(held, "./fab deploy")
        fake.failing = False
    assert raised.value.code == 5
    assert str(raised.value) == (
        "lost contact with the Swarm during the update; it continues on its own if it can: "
        "./fab status when it answers, then ./fab deploy")


def published(port: int | str) -> Stack:
    return Stack({"services": {"traefik": {"ports": [{"published": port}]}}})


@pytest.mark.parametrize(("port", "address"), [
    (80, "http://localhost"), (8080, "http://localhost:8080"), ("80", "http://localhost")])
def test_the_address_of_the_site_is_printed(
        add_command: AddCommand, capsys: pytest.CaptureFixture[str], port: int | str,
        address: str) -> None:
    add_command("docker")
    with aiming_at(FakeEngine()) as target:
        verdict.say_where(target, published(port))
    assert capsys.readouterr().out == f"Tally runs at {address}\n"


def test_the_addresses_of_a_swarm_are_those_of_its_edge_nodes(
        add_command: AddCommand, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    add_command("docker")
    fake, chosen = FakeEngine(), load(tmp_path, ONE)
    fake.kinds["nodes"]["n1"] = {"ID": "n1", "Status": {"State": "ready"}, "Spec": {
        "Availability": "active", "Labels": {"edge": "true"}}}
    fleet = Fleet([Member(chosen.nodes[0], LocalMachine())], chosen)
    with aiming_at(fake, fleet) as target:
        verdict.say_where(target, published(8080))
    assert capsys.readouterr().out == "Tally runs at http://127.0.0.1:8080\n"


@pytest.mark.parametrize(("replicas", "seconds"), [(1, 300), (2, 300), (5, 330), (100, 1280)])
def test_an_update_of_many_tasks_may_take_longer(
        add_command: AddCommand, replicas: int, seconds: int) -> None:
    add_command("docker")
    with aiming_at(FakeEngine()) as target:
        assert rollout.patience(target, deployed(replicas, at=1.0).stack) == seconds


def deployed(replicas: int, at: float) -> Record:
    stack = {"services": {"app": {"deploy": {"replicas": replicas}}}}
    return Record("1.4.0+57", "0123456", "ada@example.org", at, 12.5, stack, {})


def test_each_service_is_shown_as_new_changed_or_unchanged(
        capsys: pytest.CaptureFixture[str]) -> None:
    update.report_changes({"app": "1", "postgres": "1"},
                          {"traefik": "1", "postgres": "1", "app": "2"})
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["app", "updated"], ["postgres", "unchanged"], ["traefik", "created"]]
