"""A plan tells what a deploy would do, in groups, and takes part in nothing."""

import copy
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import docker
import pytest

from stack import lock, plan, records
from stack.plan import UNKNOWN, Plan, Wanted
from stack.records import Record
from stack.schema import Revision
from stack.swarm import NAMESPACE
from tests.stack.engine_api import Engine, reached
from tests.stack.test_changes import changed
from tests.stack.test_migration import load

pytestmark = pytest.mark.unit

SERVICES = ("traefik", "socket-proxy", "app", "postgres")
NOTHING = Plan([], [], [], [], [])
WANTED = Wanted("1.4.0+57", [], SERVICES, load(), [], [])
STEP = Revision("0002", "0001")
BY_HAND = "Changed by hand, or by a deploy that didn't end; a deploy puts it right"


@pytest.fixture
def engine() -> Engine:
    """An engine that runs the stack's four services."""
    engine = Engine()
    engine.kinds["services"] = {name: {"ID": name, "Spec": {
        "Name": f"tally_{name}", "Labels": {NAMESPACE: "tally"},
        "TaskTemplate": {"ContainerSpec": {"Env": ["USER_NAME=Ada"]}}}} for name in SERVICES}
    return engine


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    with reached(engine) as client:
        yield client


@pytest.fixture
def proven(client: docker.DockerClient) -> Record:
    """What the Swarm remembers after what it runs has been proven."""
    records.save(client, records.make(
        client, version="1.4.0+57", commit="0123456", who="ada", began=time.time(), stack=load(),
        probe=None, schema=[Revision("0001", None)]))
    found, = records.history(client)
    return found


def variables(engine: Engine, service: str) -> list[str]:
    """Return the environment of a service, to be changed by hand."""
    found: list[str] = engine.kinds["services"][service]["Spec"]["TaskTemplate"][
        "ContainerSpec"]["Env"]
    return found


def shown(capsys: pytest.CaptureFixture[str], found: Plan, current: Record | None,
          **wanted: Any) -> list[str]:
    plan.show(found, replace(WANTED, **wanted), current)
    return capsys.readouterr().out.splitlines()


def test_after_a_deploy_there_is_nothing_to_do(
        client: docker.DockerClient, proven: Record, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan.compare(client, WANTED, proven)
    assert (found, found.differs) == (NOTHING, False)
    assert shown(capsys, found, proven) == [
        "nothing to do: 1.4.0+57 runs, unchanged since it was proven"]


def test_a_new_version_differs_in_what_changed_and_whose_tasks_it_replaces(
        client: docker.DockerClient, proven: Record) -> None:
    app = {**load().services["app"], "image": "tally/app:1.4.0-58"}
    found = plan.compare(client, replace(WANTED, stack=changed("services", app=app)), proven)
    assert found == Plan(
        [], [], ["app: image tally/app:1.4.0-57 -> tally/app:1.4.0-58"], [],
        ["app: new tasks before old ones, no gap"])


def test_what_was_changed_by_hand_is_told_apart_from_what_the_checkout_changes(
        client: docker.DockerClient, engine: Engine, proven: Record) -> None:
    variables(engine, "postgres")[:] = ["USER_NAME=Eve"]
    assert plan.compare(client, WANTED, proven) == Plan(
        [], [], [], ["postgres: TaskTemplate.ContainerSpec.Env.USER_NAME Ada -> Eve"],
        ["postgres: old tasks before new ones, pages are 503 for some seconds"])


def test_services_that_were_removed_and_added_by_hand_are_told(
        client: docker.DockerClient, engine: Engine, proven: Record) -> None:
    extra = copy.deepcopy(engine.kinds["services"].pop("app"))
    engine.kinds["services"]["extra"] = {**extra, "Spec": {**extra["Spec"], "Name": "tally_extra"}}
    assert plan.compare(client, WANTED, proven) == Plan(
        [], [], [], ["app: removed by hand", "extra: added by hand, to be removed"], [])


def test_a_record_from_before_there_were_definitions_tells_what_its_hashes_can(
        client: docker.DockerClient, engine: Engine, proven: Record) -> None:
    older = replace(proven, definitions={})
    assert plan.compare(client, WANTED, older) == NOTHING
    variables(engine, "app")[:] = []
    assert plan.compare(client, WANTED, older).by_hand == [
        "app: changed by hand, and 1.4.0+57's record doesn't say what it was"]


def test_the_first_deploy_makes_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with reached(Engine()) as client:
        found = plan.compare(client, replace(WANTED, migrations=["0001: count visitors."]), None)
    assert found.changes[:4] == [f"{name}: new" for name in SERVICES]
    assert not found.by_hand and not found.restarts
    assert shown(capsys, found, None, kept=["postgres"])[:5] == [
        "1.4.0+57, the first release", "Images", "  there already: postgres", "Migrations",
        "  0001: count visitors."]


def test_a_plan_is_printed_in_groups_in_the_order_of_a_deploy(
        proven: Record, capsys: pytest.CaptureFixture[str]) -> None:
    found = Plan(["app: to be built"], ["0002: days"], ["app: [new]"], ["app: a"], ["app: no gap"])
    assert shown(capsys, found, proven, version="1.4.0+58", kept=["postgres", "traefik"]) == [
        "1.4.0+57 -> 1.4.0+58",
        "Images", "  app: to be built", "  there already: postgres, traefik",
        "Migrations", "  0002: days", "Changes", "  app: [new]", BY_HAND, "  app: a",
        "Tasks that are replaced", "  app: no gap"]


def test_a_group_without_lines_is_not_printed(
        proven: Record, capsys: pytest.CaptureFixture[str]) -> None:
    found = replace(NOTHING, by_hand=["app: a"])
    assert shown(capsys, found, proven, kept=[]) == ["1.4.0+57, again", BY_HAND, "  app: a"]


@pytest.mark.parametrize("group", ["images", "migrations", "changes", "by_hand", "restarts"])
def test_a_line_in_any_group_is_a_difference(group: str) -> None:
    assert not NOTHING.differs
    assert replace(NOTHING, **{group: ["a line"]}).differs


def test_a_schema_that_nobody_noted_is_no_difference_but_is_told(
        client: docker.DockerClient, capsys: pytest.CaptureFixture[str]) -> None:
    plan.show_notes(client, replace(WANTED, steps=None))
    assert capsys.readouterr().out == f"{UNKNOWN}\n"
    plan.show_notes(client, replace(WANTED, steps=[STEP]))
    assert capsys.readouterr().out == ""


def test_a_deploy_that_is_under_way_is_told_and_not_disturbed(
        client: docker.DockerClient, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    with lock.hold(client):
        before = copy.deepcopy(engine.kinds)
        plan.show_notes(client, WANTED)
        assert engine.kinds == before
    assert re.fullmatch(r".+ \(pid \d+\) since .+ UTC holds the deploy lock: this may change "
                        "meanwhile\n", capsys.readouterr().out)


def test_a_lock_that_has_expired_is_nobodys(
        client: docker.DockerClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.configs.create(name=lock.NAME, data=b"lock", labels={
        "who": "ada", "since": "0", "expires": "45"})
    plan.show_notes(client, WANTED)
    assert capsys.readouterr().out == ""


def test_comparing_changes_nothing_in_the_swarm(
        client: docker.DockerClient, engine: Engine, proven: Record) -> None:
    variables(engine, "app").append("ADDED=1")
    before = copy.deepcopy(engine.kinds)
    plan.compare(client, WANTED, proven)
    assert engine.kinds == before
