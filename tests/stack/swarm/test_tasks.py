"""A task and a service are read once from the Engine API; what is missing there is empty."""

from datetime import UTC, datetime
from typing import Any

import pytest

from stack.swarm.services import Service
from stack.swarm.tasks import Task

pytestmark = pytest.mark.unit

TEMPLATE = {"ContainerSpec": {"Image": "app:2"}}
TASK: dict[str, Any] = {
    "ID": "t1", "ServiceID": "s1", "NodeID": "n1", "Slot": 2, "DesiredState": "running",
    "CreatedAt": "2026-01-01T00:00:00.123456789Z", "Spec": TEMPLATE, "Status": {
        "State": "running", "Timestamp": "2026-01-01T00:00:01Z", "Message": "started",
        "ContainerStatus": {"ContainerID": "c1"}}}
SERVICE: dict[str, Any] = {
    "ID": "s1", "UpdatedAt": "2026-01-01T00:00:00Z", "Spec": {
        "Name": "tally_app", "Labels": {"com.docker.stack.namespace": "tally"},
        "TaskTemplate": TEMPLATE, "Mode": {"Replicated": {"Replicas": 3}}}}


def test_a_running_task_is_read_whole() -> None:
    task = Task.read(TASK)

    assert task == Task(
        id="t1", service="s1", node="n1", slot=2, state="running", desired_state="running",
        error="", message="started", container="c1",
        created=datetime(2026, 1, 1, 0, 0, 0, 123456, UTC),
        changed=datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), definition=TEMPLATE)
    assert (task.image, task.place, task.reason) == ("app:2", (2, ""), "started")
    assert (task.runs, task.broken, task.ended, task.dismissed) == (True, False, False, False)


def test_a_task_without_service_node_and_container_has_none() -> None:
    alone = {key: TASK[key] for key in ("ID", "DesiredState", "CreatedAt")}
    task = Task.read({**alone, "Status": {"State": "new", "Timestamp": TASK["CreatedAt"],
                                          "ContainerStatus": None}})

    assert (task.service, task.node, task.container, task.place) == ("", "", "", (0, ""))


@pytest.mark.parametrize(("state", "desired", "broken", "ended", "dismissed"), [
    ("failed", "shutdown", True, True, True), ("shutdown", "shutdown", False, True, True),
    ("running", "remove", False, False, True), ("pending", "running", False, False, False)])
def test_how_a_task_ends_is_told_from_its_states(
        state: str, desired: str, broken: bool, ended: bool, dismissed: bool) -> None:
    task = Task.read({**TASK, "DesiredState": desired, "Status": {**TASK["Status"],
                                                                  "State": state, "Err": "why"}})

    assert (task.broken, task.ended, task.dismissed, task.runs) == (broken, ended, dismissed, False)
    assert task.reason == "why"


def test_a_service_is_read_whole() -> None:
    service = Service.read(SERVICE)

    assert (service.id, service.name, service.short_name) == ("s1", "tally_app", "app")
    assert (service.image, service.replicas, service.of_stack) == ("app:2", 3, True)
    assert (service.update_state, service.at_rest) == ("", True)
    assert service.updated == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_start_of_an_update_is_newer_than_the_definition() -> None:
    update = {"State": "updating", "StartedAt": "2026-01-01T00:00:05Z", "Message": "in progress"}
    service = Service.read({**SERVICE, "UpdateStatus": update})

    assert (service.update_state, service.update_message) == ("updating", "in progress")
    assert service.updated == datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC) and not service.at_rest


def test_a_global_service_has_no_number_of_replicas() -> None:
    service = Service.read({**SERVICE, "Spec": {**SERVICE["Spec"], "Mode": {"Global": {}},
                                                "Labels": None}})

    assert (service.replicas, service.of_stack) == (None, False)
