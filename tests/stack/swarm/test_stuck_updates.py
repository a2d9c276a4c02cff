"""A stuck update is restarted, and no other is."""

from types import SimpleNamespace
from typing import Any

import pytest

from stack.engine.engine import Engine
from stack.swarm import stuck_updates
from stack.swarm.names import RESTARTED_AT
from stack.swarm.service_state import BROKEN_UPDATES
from stack.swarm.stuck_updates import INTERVAL, Stalls
from tests.support.engine_api import FakeEngine

pytestmark = pytest.mark.unit

STARTED = "2026-01-01T00:00:10.5Z"
IN_VAIN = "waited for a task on a node that went down"
TOO_MANY = "kept two tasks where one is wanted"


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def tick(self) -> None:
        self.now += INTERVAL


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stuck_updates, "time", SimpleNamespace(
        monotonic=lambda: made.now, time=lambda: made.now))
    return made


@pytest.fixture
def fake() -> FakeEngine:
    """A Swarm whose node dora went down after a task had been assigned to it."""
    made = FakeEngine()
    made.kinds["services"]["s"] = {
        "ID": "s", "Version": {"Index": 7}, "UpdateStatus": {
            "State": "updating", "StartedAt": STARTED},
        "Spec": {"Name": "tally_app", "Labels": {"traefik.enable": "true"}}}
    made.kinds["nodes"] = {name: {"ID": name, "Status": {"State": state}}
                           for name, state in (("anna", "ready"), ("dora", "down"))}
    made.kinds["tasks"]["lost"] = {
        "ID": "lost", "ServiceID": "s", "NodeID": "dora", "DesiredState": "shutdown",
        "CreatedAt": "2026-01-01T00:00:11Z", "Status": {"State": "assigned"}}
    return made


@pytest.fixture
def doubled(fake: FakeEngine) -> FakeEngine:
    """A Swarm that has completed an update and runs two tasks in the same slot."""
    fake.kinds["services"]["s"]["UpdateStatus"]["State"] = "completed"
    fake.kinds["tasks"] = {name: {
        "ID": name, "ServiceID": "s", "NodeID": "anna", "Slot": 1, "DesiredState": "running",
        "CreatedAt": "2026-01-01T00:00:11Z", "Status": {"State": "running"}}
        for name in ("one", "two")}
    return fake


def ended(stalls: Stalls, clock: Clock) -> dict[str, str]:
    """Return what was restarted after two checks."""
    clock.tick()
    assert stalls.end(["app"]) == {}
    clock.tick()
    return stalls.end(["app"])


def labels(fake: FakeEngine) -> dict[str, str]:
    found: dict[str, str] = fake.kinds["services"]["s"]["Spec"]["Labels"]
    return found


def test_a_stuck_update_is_restarted(
        fake: FakeEngine, engine: Engine, clock: Clock) -> None:
    stalls = Stalls(engine)
    assert stalls.end(["app"]) == {}
    assert ended(stalls, clock) == {"app": IN_VAIN}
    assert labels(fake) == {"traefik.enable": "true", RESTARTED_AT: "1010"}


def test_updates_that_swarm_repairs_itself_are_left_alone(
        doubled: FakeEngine, engine: Engine, clock: Clock) -> None:
    stalls = Stalls(engine)
    clock.tick()
    assert stalls.end(["app"]) == {}
    doubled.kinds["tasks"]["two"]["DesiredState"] = "shutdown"
    clock.tick()
    assert stalls.end(["app"]) == {}
    doubled.kinds["tasks"]["two"]["DesiredState"] = "running"
    clock.tick()
    assert stalls.end(["app"]) == {}
    assert RESTARTED_AT not in labels(doubled)


@pytest.mark.parametrize(("what", "key", "value"), [
    ("tasks", "NodeID", "anna"),
    ("tasks", "DesiredState", "running"),  # Swarm hasn't noticed yet.
    ("tasks", "Status", {"State": "running"}), ("tasks", "Status", {"State": "failed"}),
    ("tasks", "CreatedAt", "2026-01-01T00:00:10.45Z"),  # The update has been restarted since.
    ("services", "UpdateStatus", {"State": "completed", "StartedAt": STARTED}),
    ("services", "UpdateStatus", None)])
def test_any_other_update_is_left_alone(
        fake: FakeEngine, engine: Engine, clock: Clock, what: str, key: str, value: Any) -> None:
    next(iter(fake.kinds[what].values()))[key] = value
    assert ended(Stalls(engine), clock) == {}
    assert labels(fake) == {"traefik.enable": "true"}


def test_an_engine_that_does_not_answer_is_asked_again(
        fake: FakeEngine, engine: Engine, clock: Clock) -> None:
    stalls = Stalls(engine)
    clock.tick()
    fake.failing = True
    assert stalls.end(["app"]) == {}
    fake.failing = False
    assert ended(stalls, clock) == {"app": IN_VAIN}


def test_surplus_tasks_after_an_update_restart_it(
        doubled: FakeEngine, engine: Engine, clock: Clock) -> None:
    assert ended(Stalls(engine), clock) == {"app": TOO_MANY}
    assert labels(doubled)[RESTARTED_AT] == "1010"


def test_an_update_that_moves_from_slot_to_slot_is_left_alone(
        doubled: FakeEngine, engine: Engine, clock: Clock) -> None:
    stalls = Stalls(engine)
    clock.tick()
    assert stalls.end(["app"]) == {}
    for task, name in zip(doubled.kinds["tasks"].values(), ("three", "four")):
        task.update(ID=name, Slot=2)
    clock.tick()
    assert stalls.end(["app"]) == {}
    assert RESTARTED_AT not in labels(doubled)


@pytest.mark.parametrize(("key", "value"), [
    ("Slot", 2), ("DesiredState", "shutdown"), ("Status", {"State": "starting"})])
def test_one_task_in_each_slot_is_left_alone(
        doubled: FakeEngine, engine: Engine, clock: Clock, key: str, value: Any) -> None:
    doubled.kinds["tasks"]["two"][key] = value
    assert ended(Stalls(engine), clock) == {}


@pytest.mark.parametrize("state", ["updating", *sorted(BROKEN_UPDATES)])
def test_two_tasks_in_a_slot_of_an_unfinished_update_are_left_alone(
        doubled: FakeEngine, engine: Engine, clock: Clock, state: str) -> None:
    doubled.kinds["services"]["s"]["UpdateStatus"]["State"] = state
    assert ended(Stalls(engine), clock) == {}


def test_a_global_service_may_have_a_task_on_each_node(
        doubled: FakeEngine, engine: Engine, clock: Clock) -> None:
    for name, node in (("one", "anna"), ("two", "berta")):
        del doubled.kinds["tasks"][name]["Slot"]
        doubled.kinds["tasks"][name]["NodeID"] = node
    assert ended(Stalls(engine), clock) == {}
