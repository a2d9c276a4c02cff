"""A plan says which services' tasks an update replaces, and how visitors are affected."""

from collections.abc import Callable
from typing import Any

import pytest

from stack.release.plan import task_restarts
from stack.release.plan.diff import Difference
from stack.swarm.stackfile import Stack
from tests.stack.release.test_migrate import load

pytestmark = pytest.mark.unit

GAPS = {
    "traefik": "each node in turn refuses connections for about a second",
    "socket-proxy": "new tasks start first, no gap",
    "app": "new tasks start first, no gap",
    "postgres": "old tasks stop first, pages return 503 for a few seconds",
}


def with_service(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Stack:
    """Return the project's stack with one service changed."""
    stack = load()
    return Stack({**stack.content, "services": {
        **stack.services, name: change(stack.services[name])}})


def with_deploy(name: str, **keys: Any) -> Stack:
    return with_service(name, lambda one: {**one, "deploy": {**one["deploy"], **keys}})


@pytest.mark.parametrize("name", GAPS)
def test_another_image_replaces_a_services_tasks_and_no_others(name: str) -> None:
    new = with_service(name, lambda service: {**service, "image": "other"})
    assert task_restarts.of(load(), new, {}) == [f"{name}: {GAPS[name]}"]


def test_the_same_stack_replaces_nothing() -> None:
    assert task_restarts.of(load(), load(), {}) == []


@pytest.mark.parametrize("keys", [
    {"replicas": 5}, {"labels": {"traefik.enable": "false"}},
    {"update_config": {"order": "stop-first"}}, {"rollback_config": {"parallelism": 2}}])
def test_changes_outside_the_tasks_replace_none(keys: dict[str, Any]) -> None:
    assert task_restarts.of(load(), with_deploy("app", **keys), {}) == []


@pytest.mark.parametrize("keys", [
    {"endpoint_mode": "vip"}, {"resources": {"limits": {"memory": "1G"}}},
    {"replicas": 5, "restart_policy": {"condition": "any"}}])
def test_a_change_of_a_task_replaces_it(keys: dict[str, Any]) -> None:
    assert task_restarts.of(load(), with_deploy("app", **keys), {}) == [f"app: {GAPS['app']}"]


def test_another_placement_moves_only_tasks_that_dont_fit() -> None:
    new = with_deploy("postgres", placement={"constraints": ["node.labels.data == true"]})
    assert task_restarts.of(load(), new, {}) == [
        "postgres: only tasks whose node no longer fits will move"]


def test_a_secret_that_rotates_replaces_the_tasks_that_use_it() -> None:
    stack = load()
    secrets = {**stack.content["secrets"], "visitor-key": {"external": True, "name": "key-1"}}
    assert task_restarts.of(stack, Stack({**stack.content, "secrets": secrets}), {}) == [
        f"app: {GAPS['app']}"]


def test_a_config_by_its_bare_name_counts_like_a_secret() -> None:
    def stack(content: str) -> Stack:
        base = with_service("traefik", lambda service: {**service, "configs": ["routes"]})
        return Stack({**base.content, "configs": {"routes": {"name": content}}})
    assert task_restarts.of(stack("routes-0"), stack("routes-1"), {}) == [
        f"traefik: {GAPS['traefik']}"]


def test_added_and_removed_services_have_no_tasks_to_replace() -> None:
    stack = load()
    without = Stack({**stack.content, "services": {
        name: service for name, service in stack.services.items() if name != "app"}})
    assert task_restarts.of(without, stack, {}) == task_restarts.of(stack, without, {}) == []


@pytest.mark.parametrize(("path", "replaced"), [
    ("TaskTemplate.ContainerSpec.Env.USER_NAME", True),
    ("EndpointSpec.Ports", True),
    ("TaskTemplate.Placement.Constraints", False),
    ("TaskTemplate.ForceUpdate", False),
    ("Mode.Replicated.Replicas", False),
    ("Labels.traefik.enable", False),
])
def test_undoing_a_manual_change_of_tasks_replaces_them(
        path: str, replaced: bool) -> None:
    drifted = {"postgres": [Difference(path, "1", "2")]}
    assert task_restarts.of(load(), load(), drifted) == (
        [f"postgres: {GAPS['postgres']}"] if replaced else [])


@pytest.mark.parametrize(("service", "expected"), [
    ({}, "old tasks stop first, pages return 503 for a few seconds"),
    ({"deploy": None}, "old tasks stop first, pages return 503 for a few seconds"),
    ({"deploy": {"replicas": 3}}, "1 of 3 tasks at a time while the others serve, no gap"),
    ({"deploy": {"replicas": 3, "update_config": {"parallelism": 2}}},
     "2 of 3 tasks at a time while the others serve, no gap"),
    ({"deploy": {"replicas": 3, "update_config": {"parallelism": 3}}},
     "old tasks stop first, pages return 503 for a few seconds"),
    ({"deploy": {"replicas": 3, "update_config": {"parallelism": 0}}},
     "old tasks stop first, pages return 503 for a few seconds"),
    ({"deploy": {"mode": "global"}}, "one node at a time, old tasks stop first"),
    ({"deploy": {"mode": "global", "update_config": {"parallelism": 0}}},
     "all nodes at once, old tasks stop first"),
    ({"ports": ["80:8000"], "deploy": {"replicas": 2}},
     "1 of 2 tasks at a time while the others serve, no gap"),
    ({"ports": [{"mode": "host", "target": 8000}], "deploy": {"replicas": 2}},
     "each node in turn refuses connections for about a second"),
    ({"ports": [{"mode": "host", "target": 8000}],
      "deploy": {"update_config": {"parallelism": 0, "order": "stop-first"}}},
     "all nodes at once refuse connections for about a second"),
    ({"deploy": {"replicas": 1, "update_config": {"order": "start-first"}}},
     "new tasks start first, no gap"),
])
def test_the_update_order_decides_whether_there_is_a_gap(
        service: dict[str, Any], expected: str) -> None:
    assert task_restarts.gap(service) == expected
