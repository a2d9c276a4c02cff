"""A plan lists changes since the last proven release, and manual changes separately."""

from collections.abc import Mapping
from typing import Any

import pytest

from stack.release.plan import drift
from stack.state.releases import Record
from stack.swarm.stackfile import Stack
from tests.stack.release.test_migrate import load

pytestmark = pytest.mark.unit

APP = {"Name": "tally_app", "TaskTemplate": {"ForceUpdate": 0, "ContainerSpec": {
    "Env": ["USER_NAME=Ada"]}}, "Mode": {"Replicated": {"Replicas": 2}}}


def changed(section: str, **entries: Any) -> Stack:
    """Return the project's stack with other entries in a section; None removes one."""
    content = load().content
    after = {**content.get(section, {}), **entries}
    return Stack({**content, section: {
        name: value for name, value in after.items() if value is not None}})


def record(definitions: Mapping[str, Any], specs: Mapping[str, str]) -> Record:
    return Record("1.4.0+57", "0123456", "ada@example.org", 0, 1, {}, specs,
                  definitions=definitions)


def test_equal_stacks_have_no_changes() -> None:
    assert drift.between(load(), load()) == []


def test_a_services_fields_are_listed_one_by_one() -> None:
    app = load().services["app"]
    app = {**app, "image": "tally/app:1.4.0-58", "deploy": {**app["deploy"], "replicas": 4}}
    assert drift.between(load(), changed("services", app=app)) == [
        "app: image tally/app:1.4.0-57 -> tally/app:1.4.0-58", "app: deploy.replicas 2 -> 4"]


def test_added_and_removed_services_are_listed_by_name() -> None:
    new = changed("services", cache={"image": "tally/cache:1"}, postgres=None)
    assert drift.between(load(), new) == ["cache: new", "postgres: removed"]


def test_a_rotated_secret_is_listed_by_its_names() -> None:
    new = changed("secrets", **{"visitor-key": {"external": True, "name": "key-1"}})
    assert drift.between(load(), new) == [
        "secret visitor-key: name tally-visitor-key-0 -> key-1"]


@pytest.mark.parametrize("section", ["secrets", "configs"])
def test_added_and_removed_secrets_and_configs_are_listed(section: str) -> None:
    kind, more = section.removesuffix("s"), changed(section, token={"name": "token-0"})
    assert drift.between(load(), more) == [f"{kind} token: new"]
    assert drift.between(more, load()) == [f"{kind} token: removed"]


def test_network_changes_that_docker_ignores_are_marked() -> None:
    new = changed("networks", cache={"driver": "overlay"}, control=None,
                  data={**load().content["networks"]["data"], "internal": False})
    assert drift.between(load(), new) == [
        "network cache: new", "network control: removed (Docker keeps it)",
        "network data: internal true -> false (Docker leaves it unchanged)"]


def test_a_volume_is_listed_like_a_network() -> None:
    assert drift.between(load(), changed("volumes", more={}, **{"postgres-data": None})) == [
        "volume more: new", "volume postgres-data: removed (Docker keeps it)"]


def test_changes_to_the_migration_job_are_listed() -> None:
    new = changed("x-migrate", command=["flask", "db", "upgrade", "+1"])
    assert drift.between(load(), new) == [
        'docker-stack.yml: x-migrate.command ["flask", "db", "upgrade"] -> '
        '["flask", "db", "upgrade", "+1"]']


@pytest.mark.parametrize(("entry", "line"), [
    ({"configs": {}}, "docker-stack.yml: configs {} (new)"),
    ({"configs": None}, "docker-stack.yml: configs null (new)")])
def test_every_difference_between_two_stacks_is_listed(entry: dict[str, Any], line: str) -> None:
    assert drift.between(load(), Stack({**load().content, **entry})) == [line]


def test_before_the_first_release_everything_is_new() -> None:
    assert drift.first(load(), []) == [
        "traefik: new", "socket-proxy: new", "app: new", "postgres: new", "network edge: new",
        "network data: new", "network control: new", "volume postgres-data: new"]


def test_services_of_an_unproven_release_are_not_listed_as_new() -> None:
    assert drift.first(load(), ["app", "data"])[2:6] == [
        "app: runs, but was never proven", "postgres: new", "network edge: new",
        "network data: new"]


def told(proven: Record, running: Mapping[str, dict[str, Any]], hashes: Mapping[str, str],
         wanted: tuple[str, ...] = ("app", "postgres")) -> list[str]:
    return drift.manual_changes(proven, hashes, drift.by_hand(proven, running), wanted)


def test_an_unchanged_definition_is_not_listed() -> None:
    assert told(record({"app": APP}, {"app": "1"}), {"app": APP}, {"app": "1"}) == []


def test_a_manual_change_is_listed_field_by_field() -> None:
    task = {"ForceUpdate": 0, "ContainerSpec": {"Env": ["USER_NAME=Eve"]}}
    now = {**APP, "TaskTemplate": task, "Mode": {"Replicated": {"Replicas": 5}}}
    assert told(record({"app": APP}, {"app": "1"}), {"app": now}, {"app": "2"}) == [
        "app: TaskTemplate.ContainerSpec.Env.USER_NAME Ada -> Eve",
        "app: Mode.Replicated.Replicas 2 -> 5"]


def test_services_removed_or_added_by_hand_are_listed() -> None:
    proven = record({"app": APP, "postgres": APP}, {"app": "1", "postgres": "1"})
    assert told(proven, {"app": APP, "extra": APP}, {"app": "1", "extra": "1"}) == [
        "postgres: removed by hand", "extra: added by hand, will be removed"]


def test_a_service_added_by_hand_and_in_the_stack_stays() -> None:
    proven = record({"app": APP}, {"app": "1"})
    assert told(proven, {"app": APP, "postgres": APP}, {"app": "1", "postgres": "1"}) == [
        "postgres: added by hand"]


def test_a_record_with_only_hashes_shows_that_something_changed() -> None:
    proven = record({}, {"app": "1", "postgres": "1"})
    running, hashes = {"app": APP, "postgres": APP}, {"app": "2", "postgres": "1"}
    assert told(proven, running, hashes) == [
        "app: changed by hand; 1.4.0+57's record lacks the old definition"]
