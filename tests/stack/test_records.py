"""What the Swarm remembers of each release, and which of them a rollback brings back."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest

from stack import records
from stack.definition import Stack
from stack.records import KEPT, Record
from stack.schema import Revision
from stack.swarm import BEGUN_ANEW, NAMESPACE
from tests.stack.engine_api import Engine, reached

pytestmark = pytest.mark.unit

RUNNING = {"app": "0123456789abcdef"}


def record(version: str, at: float, content: Mapping[str, Any] | None = None) -> Record:
    image = {"services": {"app": {"image": f"app:{version}", "deploy": {"replicas": 2}}}}
    return Record(version, "0123456", "ada@example.org", at, 12.5, dict(content or image), RUNNING)


def history(*versions: str) -> list[Record]:
    """Return a record for each version, newest first."""
    return [record(version, 1000.0 - place) for place, version in enumerate(versions)]


def holding(*contents: dict[str, Any]) -> Engine:
    """Return an engine that remembers these records, in this order."""
    engine = Engine()
    engine.kinds["configs"] = {f"id{place}": {"ID": f"id{place}", "Spec": {
        "Name": f"tally-release-{place}", "Labels": {"tally.release": "1"},
        "Data": base64.b64encode(json.dumps(content).encode()).decode()}}
        for place, content in enumerate(contents)}
    return engine


@pytest.mark.parametrize(("versions", "expected"), [
    (["3", "2", "1"], "2"),
    (["2", "3", "2", "1"], "1"),  # Rolled back once.
    (["4", "2", "3", "2", "1"], "2"),  # Rolled back, then mended.
    (["3", "2", "3", "2", "1"], "2"),  # Rolled back, then forward again.
])
def test_a_rollback_goes_back_beyond_what_was_rolled_back(
        versions: list[str], expected: str) -> None:
    found = records.to_restore(history(*versions), RUNNING)
    assert found and found.version == expected


@pytest.mark.parametrize("versions", [[], ["1"], ["1", "2", "1"]])
def test_before_the_first_release_there_is_none(versions: list[str]) -> None:
    assert records.to_restore(history(*versions), RUNNING) is None


@pytest.mark.parametrize("running", [
    {}, {"app": "changed"}, {**RUNNING, "postgres": "added"}])
@pytest.mark.parametrize("versions", [["1"], ["2", "1"], ["1", "2", "1"]])
def test_a_rollback_of_what_was_never_proven_goes_back_to_the_last_proven(
        versions: list[str], running: Mapping[str, str]) -> None:
    releases = history(*versions)
    assert records.to_restore(releases, running) is releases[0]


def proven(version: str, **specs: str) -> Record:
    return replace(record(version, at=float(version)), specs=specs)


@pytest.mark.parametrize(("app", "proxy", "expected"), [
    ("2", "2", "1"),  # Nothing was begun.
    ("1", "2", "1"), ("1", "1", "1"),  # The rollback was broken off, or not recorded.
    ("2", "3", "2"), ("1", "3", "2")])  # A deploy was, or somebody changed something.
def test_a_rollback_that_was_broken_off_is_completed(app: str, proxy: str, expected: str) -> None:
    releases = [proven("2", app="2", proxy="2"), proven("1", app="1", proxy="1")]
    found = records.to_restore(releases, {"app": app, "proxy": proxy})
    assert found and found.version == expected


def test_without_a_proven_release_there_is_none_whatever_runs() -> None:
    assert records.to_restore([], {"app": "changed"}) is None


def settings(replicas: int, user: str) -> dict[str, Any]:
    return {"services": {"app": {"deploy": {"replicas": replicas}, "user": user}}}


def test_a_version_with_other_settings_is_another_release() -> None:
    releases = [record("1", 3.0, settings(2, "b")), record("1", 2.0, settings(2, "b")),
                record("1", 1.0, settings(2, "a"))]
    assert records.to_restore(releases, RUNNING) is releases[2]


def test_a_release_that_was_scaled_is_still_the_same() -> None:
    releases = [record("2", 3.0, settings(8, "b")), record("2", 2.0, settings(2, "b")),
                record("1", 1.0, settings(2, "a"))]
    assert records.to_restore(releases, RUNNING) is releases[2]


def test_a_record_holds_the_whole_stack() -> None:
    assert record("1", 0).stack == Stack({"services": {"app": {
        "image": "app:1", "deploy": {"replicas": 2}}}})


def test_releases_are_remembered_newest_first() -> None:
    first, second, third = record("1", 1.0), record("2", 2.0), record("3", 3.0)
    with reached(holding(asdict(second), asdict(third), asdict(first))) as client:
        assert records.history(client) == [third, second, first]


def test_what_a_later_version_adds_to_a_record_is_left_out() -> None:
    with reached(holding({**asdict(record("1", 1.0)), "schema": "0001", "weather": []})) as client:
        assert records.history(client) == [record("1", 1.0)]


def test_a_record_from_before_there_was_a_probe_is_read() -> None:
    older = {name: value for name, value in asdict(record("1", 1.0)).items() if name != "probe"}
    with reached(holding(older)) as client:
        assert records.history(client) == [record("1", 1.0)]


def test_other_configs_are_no_records() -> None:
    engine = holding(asdict(record("1", 1.0)))
    engine.kinds["configs"]["lock"] = {"ID": "lock", "Spec": {"Name": "tally-lock", "Labels": {}}}
    with reached(engine) as client:
        assert records.history(client) == [record("1", 1.0)]
        records.forget_all(client)
    assert set(engine.kinds["configs"]) == {"lock"}


def test_the_oldest_release_is_forgotten_for_an_eleventh() -> None:
    releases = [record(str(number), 1000.0 + number / 8) for number in range(KEPT + 1)]
    with reached(Engine()) as client:
        for each in releases:
            records.save(client, each)
        assert records.history(client) == releases[:0:-1]


def test_a_service_that_changes_shows_in_its_hash_alone() -> None:
    label = {NAMESPACE: "tally"}
    engine = Engine()
    engine.kinds["services"] = {name: {"ID": name, "Spec": {
        "Name": f"tally_{name}", "Labels": label, "Image": "one"}} for name in ("app", "postgres")}
    engine.kinds["services"]["other"] = {"ID": "other", "Spec": {"Name": "other", "Labels": {}}}
    with reached(engine) as client:
        before = records.spec_hashes(client)
        engine.kinds["services"]["app"]["Spec"]["Image"] = "two"
        after = records.spec_hashes(client)
    assert set(before) == set(after) == {"app", "postgres"}
    assert (before["app"] != after["app"], before["postgres"] == after["postgres"]) == (True, True)


def test_an_update_that_was_begun_anew_leaves_the_service_as_it_was() -> None:
    engine = Engine()
    engine.kinds["services"]["app"] = {"ID": "app", "Spec": {
        "Name": "tally_app", "Labels": {NAMESPACE: "tally"}}}
    with reached(engine) as client:
        before = records.definitions(client), records.spec_hashes(client)
        engine.kinds["services"]["app"]["Spec"]["Labels"][BEGUN_ANEW] = "1005"
        assert (records.definitions(client), records.spec_hashes(client)) == before


ONE, TWO, THREE = Revision("1", None), Revision("2", "1"), Revision("3", "2", "older code needs it")


def test_what_a_migration_has_done_takes_the_place_of_what_it_began() -> None:
    with reached(Engine()) as client:
        assert (records.applied(client), records.possible(client)) == (None, None)
        records.note_begun(client, [ONE])
        assert (records.applied(client), records.possible(client)) == (None, (ONE,))
        records.note_applied(client, [ONE])
        assert records.applied(client) == records.possible(client) == (ONE,)


def test_a_migration_whose_end_nobody_saw_may_have_taken_its_steps() -> None:
    with reached(Engine()) as client:
        records.note_applied(client, [ONE])
        records.note_begun(client, [ONE, TWO, THREE])
        assert records.applied(client) == (ONE,)
        assert records.possible(client) == (ONE, TWO, THREE)


def test_an_older_releases_migration_leaves_the_later_steps() -> None:
    with reached(Engine()) as client:
        records.note_applied(client, [ONE, TWO, THREE])
        records.note_applied(client, [ONE])
        assert records.applied(client) == (ONE, TWO, THREE)
