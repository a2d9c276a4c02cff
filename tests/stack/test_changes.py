"""What a deploy changes is told against what was proven, and what was done by hand apart."""

from collections.abc import Mapping
from typing import Any

import pytest

from stack import changes
from stack.definition import Stack
from stack.records import Record
from tests.stack.test_migration import load

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
    assert changes.between(load(), load()) == []


def test_a_services_fields_are_told_one_by_one() -> None:
    app = load().services["app"]
    app = {**app, "image": "tally/app:1.4.0-58", "deploy": {**app["deploy"], "replicas": 4}}
    assert changes.between(load(), changed("services", app=app)) == [
        "app: image tally/app:1.4.0-57 -> tally/app:1.4.0-58", "app: deploy.replicas 2 -> 4"]


def test_services_that_come_and_go_are_told_by_name() -> None:
    new = changed("services", cache={"image": "tally/cache:1"}, postgres=None)
    assert changes.between(load(), new) == ["cache: new", "postgres: removed"]


def test_a_secret_to_rotate_is_told_by_its_names() -> None:
    new = changed("secrets", **{"visitor-key": {"external": True, "name": "key-1"}})
    assert changes.between(load(), new) == [
        "secret visitor-key: name tally-visitor-key-0 -> key-1"]


@pytest.mark.parametrize("section", ["secrets", "configs"])
def test_secrets_and_configs_that_come_and_go_are_told(section: str) -> None:
    kind, more = section.removesuffix("s"), changed(section, token={"name": "token-0"})
    assert changes.between(load(), more) == [f"{kind} token: new"]
    assert changes.between(more, load()) == [f"{kind} token: removed"]


def test_of_a_network_it_is_told_what_docker_wont_do() -> None:
    new = changed("networks", cache={"driver": "overlay"}, control=None,
                  data={"driver": "overlay", "internal": False})
    assert changes.between(load(), new) == [
        "network cache: new", "network control: removed (Docker keeps it)",
        "network data: internal true -> false (Docker keeps it as it is)"]


def test_a_volume_is_told_like_a_network() -> None:
    assert changes.between(load(), changed("volumes", more={}, **{"postgres-data": None})) == [
        "volume more: new", "volume postgres-data: removed (Docker keeps it)"]


def test_what_the_migrations_job_does_differently_is_told() -> None:
    new = changed("x-migrate", command=["flask", "db", "upgrade", "+1"])
    assert changes.between(load(), new) == [
        'docker-stack.yml: x-migrate.command ["flask", "db", "upgrade"] -> '
        '["flask", "db", "upgrade", "+1"]']


@pytest.mark.parametrize(("entry", "line"), [
    ({"configs": {}}, "docker-stack.yml: configs {} (new)"),
    ({"configs": None}, "docker-stack.yml: configs null (new)")])
def test_whatever_makes_two_stacks_unequal_is_told(entry: dict[str, Any], line: str) -> None:
    assert changes.between(load(), Stack({**load().content, **entry})) == [line]


def test_before_the_first_release_everything_is_new() -> None:
    assert changes.first(load(), []) == [
        "traefik: new", "socket-proxy: new", "app: new", "postgres: new", "network edge: new",
        "network data: new", "network control: new", "volume postgres-data: new"]


def test_what_runs_without_ever_having_been_proven_is_no_news() -> None:
    assert changes.first(load(), ["app", "data"])[2:6] == [
        "app: runs, but was never proven", "postgres: new", "network edge: new",
        "network data: new"]


def told(proven: Record, running: Mapping[str, dict[str, Any]], hashes: Mapping[str, str],
         wanted: tuple[str, ...] = ("app", "postgres")) -> list[str]:
    return changes.told(proven, hashes, changes.by_hand(proven, running), wanted)


def test_a_definition_that_is_as_it_was_proven_is_not_told() -> None:
    assert told(record({"app": APP}, {"app": "1"}), {"app": APP}, {"app": "1"}) == []


def test_a_change_by_hand_is_told_field_by_field() -> None:
    task = {"ForceUpdate": 0, "ContainerSpec": {"Env": ["USER_NAME=Eve"]}}
    now = {**APP, "TaskTemplate": task, "Mode": {"Replicated": {"Replicas": 5}}}
    assert told(record({"app": APP}, {"app": "1"}), {"app": now}, {"app": "2"}) == [
        "app: TaskTemplate.ContainerSpec.Env.USER_NAME Ada -> Eve",
        "app: Mode.Replicated.Replicas 2 -> 5"]


def test_services_that_were_removed_or_added_by_hand_are_told() -> None:
    proven = record({"app": APP, "postgres": APP}, {"app": "1", "postgres": "1"})
    assert told(proven, {"app": APP, "extra": APP}, {"app": "1", "extra": "1"}) == [
        "postgres: removed by hand", "extra: added by hand, to be removed"]


def test_a_service_added_by_hand_that_the_stack_has_too_stays() -> None:
    proven = record({"app": APP}, {"app": "1"})
    assert told(proven, {"app": APP, "postgres": APP}, {"app": "1", "postgres": "1"}) == [
        "postgres: added by hand"]


def test_a_record_that_holds_only_hashes_tells_that_something_changed() -> None:
    proven = record({}, {"app": "1", "postgres": "1"})
    running, hashes = {"app": APP, "postgres": APP}, {"app": "2", "postgres": "1"}
    assert told(proven, running, hashes) == [
        "app: changed by hand, and 1.4.0+57's record doesn't say what it was"]
