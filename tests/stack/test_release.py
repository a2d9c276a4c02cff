"""An operator is told what an interruption leaves, what changed, and where the page is."""

from pathlib import Path

import pytest

from stack import lock, preparation, proof, records, release
from stack.definition import Stack
from stack.errors import RestoreFailed, UpdateFailed
from stack.fleet import Fleet, Member
from stack.machine import LocalMachine
from stack.records import Record
from stack.settings import DEFAULT_REPLICAS
from tests.stack.conftest import AddCommand
from tests.stack.engine_api import Engine, reached
from tests.stack.inventories import ONE, load
from tests.stack.targets import aiming_at

pytestmark = pytest.mark.unit

INTERRUPTED = "interrupted in the middle of the update: ./fab status\n"


@pytest.mark.parametrize(("interruption", "code"), [
    (KeyboardInterrupt(), 130), (SystemExit(143), 143), (SystemExit(129), 129)])
def test_an_interrupted_update_says_what_it_leaves(
        capsys: pytest.CaptureFixture[str], interruption: BaseException, code: int) -> None:
    with pytest.raises(SystemExit) as raised, proof.telling_if_interrupted("./fab status"):
        raise interruption
    assert (raised.value.code, capsys.readouterr().out) == (code, INTERRUPTED)


def test_an_update_whose_output_nobody_reads_any_more_needs_a_person() -> None:
    with pytest.raises(SystemExit) as raised, proof.telling_if_interrupted("./fab status"):
        raise SystemExit(1)
    assert raised.value.code == 5


def test_an_update_that_a_bug_ends_needs_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RestoreFailed) as raised, proof.telling_if_interrupted("./fab status"):
        raise KeyError("Spec")
    assert str(raised.value) == ("in the middle of the update, a bug: KeyError: 'Spec': "
                                 "./fab status")
    assert "Traceback" in capsys.readouterr().err


def test_an_update_that_failed_was_not_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UpdateFailed), proof.telling_if_interrupted("./fab status"):
        raise UpdateFailed("the update failed")
    assert capsys.readouterr().out == ""


def test_an_update_whose_swarm_can_not_be_asked_any_more_needs_a_person() -> None:
    engine = Engine()
    with reached(engine) as client, lock.hold(client) as held:
        engine.failing = True
        with pytest.raises(RestoreFailed) as raised:
            proof.require_still(held, "./fab deploy")
        engine.failing = False
    assert raised.value.code == 5
    assert str(raised.value) == (
        "in the middle of the update, the Swarm doesn't answer any more; it goes on with what it "
        "was told, if it can: ./fab status when it does, then ./fab deploy")


def published(port: int | str) -> Stack:
    return Stack({"services": {"traefik": {"ports": [{"published": port}]}}})


@pytest.mark.parametrize(("port", "address"), [
    (80, "http://localhost"), (8080, "http://localhost:8080"), ("80", "http://localhost")])
def test_people_are_told_the_address_of_what_was_deployed(
        add_command: AddCommand, capsys: pytest.CaptureFixture[str], port: int | str,
        address: str) -> None:
    add_command("docker")
    with aiming_at(Engine()) as target:
        proof.say_where(target, published(port))
    assert capsys.readouterr().out == f"Tally runs at {address}\n"


def test_a_swarm_of_an_inventory_is_told_by_its_edge_nodes(
        add_command: AddCommand, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    add_command("docker")
    engine, chosen = Engine(), load(tmp_path, ONE)
    engine.kinds["nodes"]["n1"] = {"ID": "n1", "Status": {"State": "ready"}, "Spec": {
        "Availability": "active", "Labels": {"edge": "true"}}}
    fleet = Fleet([Member(chosen.nodes[0], LocalMachine())], chosen)
    with aiming_at(engine, fleet) as target:
        proof.say_where(target, published(8080))
    assert capsys.readouterr().out == "Tally runs at http://127.0.0.1:8080\n"


@pytest.mark.parametrize(("replicas", "seconds"), [(1, 300), (2, 300), (5, 330), (100, 1280)])
def test_an_update_of_many_tasks_may_take_longer(
        add_command: AddCommand, replicas: int, seconds: int) -> None:
    add_command("docker")
    with aiming_at(Engine()) as target:
        assert proof.patience(target, deployed(replicas, at=1.0).stack) == seconds


def deployed(replicas: int, at: float) -> Record:
    stack = {"services": {"app": {"deploy": {"replicas": replicas}}}}
    return Record("1.4.0+57", "0123456", "ada@example.org", at, 12.5, stack, {})


def test_a_deploy_keeps_as_many_tasks_as_the_last_release_had(add_command: AddCommand) -> None:
    add_command("docker")
    with aiming_at(Engine()) as target:
        for record in (deployed(3, at=1.0), deployed(5, at=3.0), deployed(4, at=2.0)):
            records.save(target.client, record)
        assert preparation.running_replicas(target) == 5


def test_a_first_deploy_has_two_tasks(add_command: AddCommand) -> None:
    add_command("docker")
    with aiming_at(Engine()) as target:
        assert preparation.running_replicas(target) == DEFAULT_REPLICAS == 2


def test_each_service_is_said_to_be_new_changed_or_as_it_was(
        capsys: pytest.CaptureFixture[str]) -> None:
    release.report_changes({"app": "1", "postgres": "1"},
                           {"traefik": "1", "postgres": "1", "app": "2"})
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["app", "updated"], ["postgres", "unchanged"], ["traefik", "created"]]
