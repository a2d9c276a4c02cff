"""A service's progress is judged by its tasks, and the failing task is named."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from stack.swarm.names import NAMESPACE
from stack.swarm.service_state import BROKEN_UPDATES, Progress, TaskLine, progress
from tests.support.engine_api import FakeEngine, reached

pytestmark = pytest.mark.unit

NEW, OLD = {"ContainerSpec": {"Image": "app:2"}}, {"ContainerSpec": {"Image": "app:1"}}
Task = dict[str, Any]


def identity(place: int) -> str:
    """Return an id as long as Swarm's own."""
    return f"task{place:021}"


def task(state: str, spec: dict[str, Any], place: int, error: str = "") -> Task:
    """Return a task as the Engine API gives it, created in minute `place`, with no container."""
    ended = state in {"failed", "rejected", "shutdown", "complete"}
    return {"ID": identity(place), "ServiceID": "s", "Spec": {**spec, "Runtime": "container"},
            "CreatedAt": f"2026-01-01T00:{place:02}:00.123456789Z",
            "DesiredState": "shutdown" if ended else "running",
            "Status": {"State": state, "Timestamp": f"2026-01-01T00:{place:02}:01.5Z",
                       "Err": error, "Message": "started"}}


def crash(seconds: int, minute: int = 0) -> Task:
    """Return a task of the new definition that failed right after its start, at this time."""
    at = f"2026-01-01T00:{minute:02}:{seconds:02}Z"
    failed = task("failed", NEW, 100 + minute * 60 + seconds, f"exit code {seconds}")
    return with_container({**failed, "CreatedAt": at,
                           "Status": {**failed["Status"], "Timestamp": at}})


def with_container(given: Task, container: str = "gone") -> Task:
    status = {**given["Status"], "ContainerStatus": {"ContainerID": container}}
    return {**given, "Status": status}


def given_up(state: str, place: int | None = None) -> dict[str, str]:
    """Return an update's status, with the task that Swarm gives as its reason."""
    why = "" if place is None else f" due to failure or early termination of task {identity(place)}"
    return {"State": state, "Message": f"update given up{why}"}


def seen(*tasks: Task, update: dict[str, str] | None = None, health: dict[str, Any] | None = None,
         replicas: int = 2, mode: dict[str, Any] | None = None,
         updated: str = "2026-01-01T00:00:00Z") -> Progress:
    """Return the service's state with these tasks; `health` is that of the container "here"."""
    fake = FakeEngine()
    fake.kinds["services"]["s"] = {
        "ID": "s", "UpdatedAt": updated, "UpdateStatus": update,
        "Spec": {"Name": "tally_app", "Labels": {NAMESPACE: "tally"}, "TaskTemplate": NEW,
                 "Mode": mode or {"Replicated": {"Replicas": replicas}}}}
    fake.kinds["tasks"] = {each["ID"]: each for each in tasks}
    fake.kinds["containers"] = {"here": {
        "Id": "here", "State": {"Health": health or {}}, "Config": {}}}
    with reached(fake) as engine:
        found, = progress(engine, ["app"])
        return found


def test_a_missing_service_is_broken() -> None:
    fake = FakeEngine()
    fake.kinds["services"]["other"] = {"ID": "other", "Spec": {
        "Name": "tally_app", "Labels": {NAMESPACE: "another stack"}}}
    with reached(fake) as engine:
        assert progress(engine, ["app"]) == [Progress("app", 0, 0, broken="the service is gone")]


def test_progress_reads_as_running_of_wanted() -> None:
    assert str(Progress("app", 1, 2)) == "app 1/2"


def test_a_service_has_settled_when_only_its_new_tasks_run() -> None:
    found = seen(task("running", NEW, 1), task("running", NEW, 2), task("shutdown", OLD, 0))
    running = frozenset({identity(1), identity(2)})
    assert replace(found, lines=()) == Progress(
        "app", 2, 2, running, full=True, settled=True, task=identity(2))


@pytest.mark.parametrize("tasks", [
    [task("running", NEW, 1)],
    [task("running", NEW, 1), task("running", OLD, 0)],
    [task("running", NEW, 1), task("starting", NEW, 2)],
    [task("running", NEW, 1), task("running", NEW, 2), task("running", OLD, 0)]])
def test_a_service_with_other_tasks_has_not_settled(tasks: list[Task]) -> None:
    found = seen(*tasks)
    assert (found.settled, found.broken) == (False, "")


def test_an_update_that_swarm_still_monitors_has_not_settled() -> None:
    found = seen(task("running", NEW, 1), task("running", NEW, 2), update={"State": "updating"})
    assert (found.running, found.settled, found.broken) == (2, False, "")


@pytest.mark.parametrize("state", sorted(BROKEN_UPDATES))
def test_an_update_that_swarm_gave_up_names_the_failed_task(state: str) -> None:
    found = seen(task("running", OLD, 0), with_container(task("failed", NEW, 1, "exit code 3")),
                 with_container(task("failed", OLD, 2, "of another update")),
                 with_container(task("running", NEW, 3)),
                 update=given_up(state, 1))
    assert (found.settled, found.task) == (False, identity(1))
    assert found.broken == f"exit code 3 (Swarm's update: {state.replace('_', ' ')})"


def test_an_update_that_swarm_gave_up_is_broken_even_if_every_task_runs() -> None:
    found = seen(*(with_container(task("running", NEW, place)) for place in (1, 2)),
                 update=given_up("rollback_completed"))
    assert not found.settled
    assert found.broken.endswith("(Swarm's update: rollback completed)")


def test_an_update_without_a_task_says_so() -> None:
    assert seen(update=given_up("paused")).broken \
        == "none of its tasks was started (Swarm's update: paused)"


@pytest.mark.parametrize(("output", "cause"), [
    ("the schema is 0001\n", "unhealthy: the schema is 0001"),
    ("\n", "unhealthy: its health check failed")])
def test_an_unhealthy_tasks_last_check_explains_it(
        output: str, cause: str) -> None:
    health = {"Status": "unhealthy", "FailingStreak": 3,
              "Log": [{"Output": "early"}, {"Output": output}]}
    found = seen(with_container(task("complete", NEW, 1), "here"), health=health,
                 update=given_up("rollback_started", 1))
    assert found.broken == f"{cause} (Swarm's update: rollback started)"


@pytest.mark.parametrize("health", [
    None, {"Status": "healthy", "Log": [{"Output": "ok"}]},
    {"Status": "unhealthy", "FailingStreak": 3, "Log": []},
    # As for any container that has exited.
    {"Status": "unhealthy", "FailingStreak": 1, "Log": [{"Output": "nothing listens"}]}])
def test_swarm_explains_a_task_without_health_output(
        health: dict[str, Any] | None) -> None:
    found = seen(with_container(task("failed", NEW, 1, "exit code 3"), "here"), health=health,
                 update=given_up("paused", 1))
    assert found.broken == "exit code 3 (Swarm's update: paused)"


def test_rejected_tasks_without_a_container_are_reported_too() -> None:
    # As when an image is missing.
    rejected = [{**each, "Status": {**each["Status"], "State": "rejected", "ContainerStatus": {}}}
                for each in (crash(1), crash(2), crash(3))]
    assert seen(*rejected).broken == "3 tasks in a row ended: exit code 3"


def test_a_new_service_may_fail_twice() -> None:
    assert seen(crash(1), crash(2)).broken == ""


def test_a_new_service_that_keeps_failing_is_broken_by_the_last_failure() -> None:
    found = seen(crash(3), crash(1), crash(2), task("starting", NEW, 1))
    assert (found.broken, found.task) == ("3 tasks in a row ended: exit code 3", identity(103))


def test_failures_before_the_definition_was_set_again_dont_count() -> None:
    tasks = [crash(1), crash(2), crash(3), task("starting", NEW, 1)]
    assert seen(*tasks).broken.startswith("3 tasks in a row ended")
    assert seen(*tasks, updated="2026-01-01T00:00:30Z").broken == ""


def test_a_completed_update_still_has_its_failures() -> None:
    tasks = [crash(11), crash(12), crash(13), task("starting", NEW, 1)]
    update = {"State": "completed", "StartedAt": "2026-01-01T00:00:10Z"}
    found = seen(*tasks, update=update, updated="2026-01-01T00:00:30Z")
    assert found.broken.startswith("3 tasks in a row ended") and len(found.lives) == 3


@pytest.mark.parametrize(("waiting", "wanted"), [(True, 3), (False, 2)])
def test_a_global_service_wants_a_task_on_each_assigned_node(
        waiting: bool, wanted: int) -> None:
    tasks = [{**task("running", NEW, place), "NodeID": f"node{place}"} for place in (1, 2)]
    tasks.append({**task("failed", NEW, 3), "NodeID": "node3"})
    if waiting:
        tasks.append({**task("ready", NEW, 4), "NodeID": "node3", "DesiredState": "ready"})
    found = seen(*tasks, mode={"Global": {}})
    assert (found.running, found.wanted, found.full) == (2, wanted, not waiting)


def test_old_failures_dont_count() -> None:
    found = seen(crash(1), crash(2), crash(3, minute=5), task("starting", NEW, 6))
    assert (found.settled, found.broken) == (False, "")


def test_a_service_that_runs_again_after_failures_has_settled() -> None:
    found = seen(crash(1), crash(2), crash(3), task("running", NEW, 1), replicas=1)
    assert (found.settled, found.broken) == (True, "")


def test_failures_of_the_old_definition_say_nothing_about_the_new() -> None:
    old = [{**crash(second), "Spec": OLD} for second in (1, 2, 3)]
    assert seen(*old, task("starting", NEW, 1)).broken == ""


def at(place: int, given: Task, node: str = "", desired: str = "") -> Task:
    """Return a task for one slot of a replicated service, on a node if one is given."""
    return {**given, "Slot": place, "DesiredState": desired or given["DesiredState"],
            **({"NodeID": node} if node else {})}


def states(found: Progress) -> list[tuple[str, bool]]:
    return [(line.state, line.new) for line in found.lines]


def test_a_line_describes_a_task() -> None:
    image = {"ContainerSpec": {"Image": "registry.example.org:5000/tally/app:1.4.0-57@sha256:ab"}}
    rejected = task("rejected", image, 5, "No such image:\n  app")
    assert seen(at(1, rejected, "node")).lines == (TaskLine(
        "app", "node", "1.4.0-57", "rejected", datetime(2026, 1, 1, 0, 5, 0, 123456, UTC),
        datetime(2026, 1, 1, 0, 5, 1, 500000, UTC), "No such image: app", new=False),)


@pytest.mark.parametrize(("image", "tag"), [
    ("app:1", "1"), ("localhost:1/tally/app", ""), ("localhost:1/tally/app:1.4.0-57", "1.4.0-57"),
    ("192.0.2.1:5000/app:2@sha256:0a", "2"), ("app@sha256:0a", "")])
def test_a_line_has_the_tag_of_the_tasks_image(image: str, tag: str) -> None:
    found = seen(task("running", {"ContainerSpec": {"Image": image}}, 1))
    assert [line.tag for line in found.lines] == [tag]


def test_running_and_starting_tasks_have_a_line_slot_by_slot() -> None:
    found = seen(at(2, task("running", OLD, 2)), at(1, task("preparing", NEW, 4)),
                 at(2, task("ready", NEW, 5), desired="ready"), at(1, task("running", OLD, 1)))
    assert states(found) == [
        ("running", False), ("preparing", True), ("running", False), ("ready", True)]


def test_a_task_is_stopping_until_it_has_ended() -> None:
    found = seen(at(1, task("running", OLD, 1), desired="shutdown"),
                 at(2, task("running", NEW, 2), desired="remove"))
    assert states(found) == [("stopping", False), ("stopping", True)]


@pytest.mark.parametrize("state", ["pending", "assigned", "shutdown", "remove"])
def test_a_task_that_was_stopped_has_no_line(state: str) -> None:
    assert states(seen(at(1, task(state, OLD, 1), desired="shutdown"))) == []


def test_the_last_failure_in_a_slot_has_a_line() -> None:
    found = seen(at(1, crash(9), "a"), at(1, crash(3), "b"), at(2, crash(5)),
                 at(1, task("new", NEW, 8)))
    assert [line.error for line in found.lines] == ["exit code 9", "", "exit code 5"]


def test_a_global_services_slots_are_the_nodes() -> None:
    failed = [{**crash(second), "NodeID": node} for second, node in ((1, "b"), (2, "a"), (3, "a"))]
    assert [(line.node, line.error) for line in seen(*failed).lines] == [
        ("a", "exit code 3"), ("b", "exit code 1")]


def test_a_task_that_finds_no_node_says_why() -> None:
    why = "no suitable node (insufficient memory)"
    assert [line.error for line in seen(at(1, task("pending", NEW, 1, why))).lines] == [why]


def test_a_failure_without_an_error_has_swarms_message() -> None:
    found = seen(at(1, task("complete", NEW, 1)), at(2, task("running", NEW, 2)))
    assert [line.error for line in found.lines] == ["started", ""]


def test_an_early_exit_is_shown_with_the_tasks_lifetime() -> None:
    found = seen(task("failed", NEW, 1), task("running", NEW, 2), task("failed", OLD, 0))

    assert found.lives == {identity(1): pytest.approx(1.377, abs=0.001)}


def test_a_long_running_tasks_exit_says_nothing_about_the_others() -> None:
    lasting = {**task("failed", NEW, 30), "CreatedAt": "2026-01-01T00:01:00Z"}

    assert seen(lasting, task("running", NEW, 31)).lives == {}
