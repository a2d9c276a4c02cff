"""An update that Swarm left unfinished begins anew, and no other does."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import docker
import pytest

from stack import stall
from stack.progress import BROKEN_UPDATES
from stack.stall import INTERVAL, Stalls
from stack.swarm import BEGUN_ANEW
from tests.stack.engine_api import Engine, reached

pytestmark = pytest.mark.unit

STARTED = "2026-01-01T00:00:10.5Z"
IN_VAIN = "waited for a task on a node that went down"
TOO_MANY = "kept two tasks where one is wanted"


class Clock:
    """A time that a test sets."""

    now = 1000.0

    def tick(self) -> None:
        self.now += INTERVAL


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stall, "time", SimpleNamespace(
        monotonic=lambda: made.now, time=lambda: made.now))
    return made


@pytest.fixture
def engine() -> Engine:
    """A Swarm in which dora went down while a task was on its way to it."""
    made = Engine()
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
def doubled(engine: Engine) -> Engine:
    """A Swarm that has completed an update and runs two tasks in the same place."""
    engine.kinds["services"]["s"]["UpdateStatus"]["State"] = "completed"
    engine.kinds["tasks"] = {name: {
        "ID": name, "ServiceID": "s", "NodeID": "anna", "Slot": 1, "DesiredState": "running",
        "CreatedAt": "2026-01-01T00:00:11Z", "Status": {"State": "running"}}
        for name in ("one", "two")}
    return engine


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    with reached(engine) as client:
        yield client


def ended(stalls: Stalls, clock: Clock) -> dict[str, str]:
    """Return what began anew after two looks."""
    clock.tick()
    assert stalls.end(["app"]) == {}
    clock.tick()
    return stalls.end(["app"])


def labels(engine: Engine) -> dict[str, str]:
    found: dict[str, str] = engine.kinds["services"]["s"]["Spec"]["Labels"]
    return found


def test_an_update_that_waits_in_vain_begins_anew(
        engine: Engine, client: docker.DockerClient, clock: Clock) -> None:
    stalls = Stalls(client)
    assert stalls.end(["app"]) == {}
    assert ended(stalls, clock) == {"app": IN_VAIN}
    assert labels(engine) == {"traefik.enable": "true", BEGUN_ANEW: "1010"}


def test_what_swarm_puts_right_by_itself_is_left_to_it(
        doubled: Engine, client: docker.DockerClient, clock: Clock) -> None:
    stalls = Stalls(client)
    clock.tick()
    assert stalls.end(["app"]) == {}
    doubled.kinds["tasks"]["two"]["DesiredState"] = "shutdown"
    clock.tick()
    assert stalls.end(["app"]) == {}
    doubled.kinds["tasks"]["two"]["DesiredState"] = "running"
    clock.tick()
    assert stalls.end(["app"]) == {}
    assert BEGUN_ANEW not in labels(doubled)


@pytest.mark.parametrize(("what", "key", "value"), [
    ("tasks", "NodeID", "anna"),
    ("tasks", "DesiredState", "running"),  # Swarm hasn't noticed yet.
    ("tasks", "Status", {"State": "running"}), ("tasks", "Status", {"State": "failed"}),
    ("tasks", "CreatedAt", "2026-01-01T00:00:10.45Z"),  # It has begun anew since.
    ("services", "UpdateStatus", {"State": "completed", "StartedAt": STARTED}),
    ("services", "UpdateStatus", None)])
def test_any_other_update_goes_on(engine: Engine, client: docker.DockerClient, clock: Clock,
                                  what: str, key: str, value: Any) -> None:
    next(iter(engine.kinds[what].values()))[key] = value
    assert ended(Stalls(client), clock) == {}
    assert labels(engine) == {"traefik.enable": "true"}


def test_an_engine_that_does_not_answer_is_asked_again(
        engine: Engine, client: docker.DockerClient, clock: Clock) -> None:
    stalls = Stalls(client)
    clock.tick()
    engine.failing = True
    assert stalls.end(["app"]) == {}
    engine.failing = False
    assert ended(stalls, clock) == {"app": IN_VAIN}


def test_tasks_that_are_too_many_after_an_update_have_it_begin_anew(
        doubled: Engine, client: docker.DockerClient, clock: Clock) -> None:
    assert ended(Stalls(client), clock) == {"app": TOO_MANY}
    assert labels(doubled)[BEGUN_ANEW] == "1010"


def test_one_place_after_the_other_is_an_update_that_goes_on(
        doubled: Engine, client: docker.DockerClient, clock: Clock) -> None:
    stalls = Stalls(client)
    clock.tick()
    assert stalls.end(["app"]) == {}
    for task, name in zip(doubled.kinds["tasks"].values(), ("three", "four")):
        task.update(ID=name, Slot=2)
    clock.tick()
    assert stalls.end(["app"]) == {}
    assert BEGUN_ANEW not in labels(doubled)


@pytest.mark.parametrize(("key", "value"), [
    ("Slot", 2), ("DesiredState", "shutdown"), ("Status", {"State": "starting"})])
def test_one_task_in_each_place_is_left_alone(
        doubled: Engine, client: docker.DockerClient, clock: Clock, key: str, value: Any) -> None:
    doubled.kinds["tasks"]["two"][key] = value
    assert ended(Stalls(client), clock) == {}


@pytest.mark.parametrize("state", ["updating", *sorted(BROKEN_UPDATES)])
def test_two_tasks_in_a_place_are_left_to_an_update_that_is_at_work_or_went_wrong(
        doubled: Engine, client: docker.DockerClient, clock: Clock, state: str) -> None:
    doubled.kinds["services"]["s"]["UpdateStatus"]["State"] = state
    assert ended(Stalls(client), clock) == {}


def test_a_global_service_may_have_a_task_on_each_node(
        doubled: Engine, client: docker.DockerClient, clock: Clock) -> None:
    for name, node in (("one", "anna"), ("two", "berta")):
        del doubled.kinds["tasks"][name]["Slot"]
        doubled.kinds["tasks"][name]["NodeID"] = node
    assert ended(Stalls(client), clock) == {}
