"""A plan shows what a deploy would do, in groups, and changes nothing."""

import copy
import re
import time
from dataclasses import replace
from typing import Any

import pytest

from stack.commands import plan
from stack.commands.plan import UNKNOWN, Plan, PlannedRelease
from stack.engine.engine import Engine
from stack.state import lock, releases
from stack.state.releases import Record
from stack.state.revisions import Revision
from stack.swarm.names import NAMESPACE
from tests.stack.release.plan.test_drift import changed
from tests.stack.release.test_migrate import load
from tests.support.engine_api import FakeEngine, reached

pytestmark = pytest.mark.unit

SERVICES = ("traefik", "socket-proxy", "app", "postgres")
NOTHING = Plan([], [], [], [], [])
WANTED = PlannedRelease("1.4.0+57", [], SERVICES, load(), [], [])
STEP = Revision("0002", "0001")
BY_HAND = "Changed by hand, or by a deploy that didn't finish; a deploy corrects it"


@pytest.fixture
def fake() -> FakeEngine:
    """An engine that runs the stack's four services."""
    fake = FakeEngine()
    fake.kinds["services"] = {name: {"ID": name, "Spec": {
        "Name": f"tally_{name}", "Labels": {NAMESPACE: "tally"},
        "TaskTemplate": {"ContainerSpec": {"Env": ["USER_NAME=Ada"]}}}} for name in SERVICES}
    return fake


@pytest.fixture
def proven(engine: Engine) -> Record:
    """The record of the running release, which is proven."""
    releases.save(engine, releases.make(
        engine, version="1.4.0+57", commit="0123456", who="ada", began=time.time(), stack=load(),
        probe=None, schema=[Revision("0001", None)]))
    found, = releases.history(engine)
    return found


def variables(fake: FakeEngine, service: str) -> list[str]:
    """Return a service's environment, for a test to change as if by hand."""
    found: list[str] = fake.kinds["services"][service]["Spec"]["TaskTemplate"][
        "ContainerSpec"]["Env"]
    return found


def shown(capsys: pytest.CaptureFixture[str], found: Plan, current: Record | None,
          **wanted: Any) -> list[str]:
    plan.show(found, replace(WANTED, **wanted), current)
    return capsys.readouterr().out.splitlines()


def test_after_a_deploy_there_is_nothing_to_do(
        engine: Engine, proven: Record, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan.compare(engine, WANTED, proven)
    assert (found, found.differs) == (NOTHING, False)
    assert shown(capsys, found, proven) == [
        "nothing to do: 1.4.0+57 is running, unchanged since it was verified"]


def test_a_new_version_shows_its_changes_and_replaced_tasks(
        engine: Engine, proven: Record) -> None:
    app = {**load().services["app"], "image": "tally/app:1.4.0-58"}
    found = plan.compare(engine, replace(WANTED, stack=changed("services", app=app)), proven)
    assert found == Plan(
        [], [], ["app: image tally/app:1.4.0-57 -> tally/app:1.4.0-58"], [],
        ["app: new tasks start first, no gap"])


def test_manual_changes_are_shown_apart_from_the_checkouts(
        engine: Engine, fake: FakeEngine, proven: Record) -> None:
    variables(fake, "postgres")[:] = ["USER_NAME=Eve"]
    assert plan.compare(engine, WANTED, proven) == Plan(
        [], [], [], ["postgres: TaskTemplate.ContainerSpec.Env.USER_NAME Ada -> Eve"],
        ["postgres: old tasks stop first, pages return 503 for a few seconds"])


def test_services_removed_and_added_by_hand_are_shown(
        engine: Engine, fake: FakeEngine, proven: Record) -> None:
    extra = copy.deepcopy(fake.kinds["services"].pop("app"))
    fake.kinds["services"]["extra"] = {**extra, "Spec": {**extra["Spec"], "Name": "tally_extra"}}
    assert plan.compare(engine, WANTED, proven) == Plan(
        [], [], [], ["app: removed by hand", "extra: added by hand, will be removed"], [])


def test_a_record_without_definitions_is_compared_by_its_hashes(
        engine: Engine, fake: FakeEngine, proven: Record) -> None:
    older = replace(proven, definitions={})
    assert plan.compare(engine, WANTED, older) == NOTHING
    variables(fake, "app")[:] = []
    assert plan.compare(engine, WANTED, older).by_hand == [
        "app: changed by hand; 1.4.0+57's record lacks the old definition"]


def test_the_first_deploy_makes_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with reached(FakeEngine()) as engine:
        found = plan.compare(engine, replace(WANTED, migrations=["0001: count visitors."]), None)
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


def test_an_unrecorded_schema_is_shown_but_is_no_difference(
        engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    plan.show_notes(engine, replace(WANTED, steps=None))
    assert capsys.readouterr().out == f"{UNKNOWN}\n"
    plan.show_notes(engine, replace(WANTED, steps=[STEP]))
    assert capsys.readouterr().out == ""


def test_a_deploy_in_progress_is_shown_and_not_disturbed(
        engine: Engine, fake: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    with lock.hold(engine):
        before = copy.deepcopy(fake.kinds)
        plan.show_notes(engine, WANTED)
        assert fake.kinds == before
    assert re.fullmatch(r".+ \(pid \d+\) has held the deploy lock since .+ UTC: this plan may "
                        "change\n", capsys.readouterr().out)


def test_an_expired_lock_belongs_to_nobody(
        engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.configs.create(name=lock.NAME, data=b"lock", labels={
        "who": "ada", "since": "0", "expires": "45"})
    plan.show_notes(engine, WANTED)
    assert capsys.readouterr().out == ""


def test_comparing_changes_nothing_in_the_swarm(
        engine: Engine, fake: FakeEngine, proven: Record) -> None:
    variables(fake, "app").append("ADDED=1")
    before = copy.deepcopy(fake.kinds)
    plan.compare(engine, WANTED, proven)
    assert fake.kinds == before
