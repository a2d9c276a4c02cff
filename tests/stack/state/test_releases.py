"""The Swarm keeps a record of each release, and a rollback restores the right one."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest

from stack.state import releases, schema
from stack.state.releases import KEPT, Record, save, to_restore
from stack.state.revisions import Revision
from stack.swarm import services
from stack.swarm.names import NAMESPACE, RESTARTED_AT
from stack.swarm.stackfile import Stack
from tests.support.engine_api import FakeEngine, reached

pytestmark = pytest.mark.unit

RUNNING = {"app": "0123456789abcdef"}


def record(version: str, at: float, content: Mapping[str, Any] | None = None) -> Record:
    image = {"services": {"app": {"image": f"app:{version}", "deploy": {"replicas": 2}}}}
    return Record(version, "0123456", "ada@example.org", at, 12.5, dict(content or image), RUNNING)


def history(*versions: str) -> list[Record]:
    """Return a record for each version, newest first."""
    return [record(version, 1000.0 - place) for place, version in enumerate(versions)]


def holding(*contents: dict[str, Any]) -> FakeEngine:
    """Return an engine that holds these records, in this order."""
    fake = FakeEngine()
    fake.kinds["configs"] = {f"id{place}": {"ID": f"id{place}", "Spec": {
        "Name": f"tally-release-{place}", "Labels": {"tally.release": "1"},
        "Data": base64.b64encode(json.dumps(content).encode()).decode()}}
        for place, content in enumerate(contents)}
    return fake


@pytest.mark.parametrize(("versions", "expected"), [
    (["3", "2", "1"], "2"),
    (["2", "3", "2", "1"], "1"),  # Rolled back once.
    (["4", "2", "3", "2", "1"], "2"),  # Rolled back, then mended.
    (["3", "2", "3", "2", "1"], "2"),  # Rolled back, then forward again.
])
def test_a_rollback_skips_releases_that_were_rolled_back(
        versions: list[str], expected: str) -> None:
    found = releases.to_restore(history(*versions), RUNNING)
    assert found and found.version == expected


@pytest.mark.parametrize("versions", [[], ["1"], ["1", "2", "1"]])
def test_before_the_first_release_there_is_nothing_to_restore(versions: list[str]) -> None:
    assert releases.to_restore(history(*versions), RUNNING) is None


@pytest.mark.parametrize("running", [
    {}, {"app": "changed"}, {**RUNNING, "postgres": "added"}])
@pytest.mark.parametrize("versions", [["1"], ["2", "1"], ["1", "2", "1"]])
def test_a_rollback_of_an_unproven_release_restores_the_last_proven(
        versions: list[str], running: Mapping[str, str]) -> None:
    releases = history(*versions)
    assert to_restore(releases, running) is releases[0]


def proven(version: str, **specs: str) -> Record:
    return replace(record(version, at=float(version)), specs=specs)


@pytest.mark.parametrize(("app", "proxy", "expected"), [
    ("2", "2", "1"),  # Nothing was begun.
    ("1", "2", "1"), ("1", "1", "1"),  # The rollback was interrupted, or not recorded.
    ("2", "3", "2"), ("1", "3", "2")])  # A deploy was, or somebody changed something.
def test_an_interrupted_rollback_is_completed(app: str, proxy: str, expected: str) -> None:
    releases = [proven("2", app="2", proxy="2"), proven("1", app="1", proxy="1")]
    found = to_restore(releases, {"app": app, "proxy": proxy})
    assert found and found.version == expected


def test_without_a_proven_release_there_is_nothing_to_restore() -> None:
    assert releases.to_restore([], {"app": "changed"}) is None


def settings(replicas: int, user: str) -> dict[str, Any]:
    return {"services": {"app": {"deploy": {"replicas": replicas}, "user": user}}}


def test_a_version_with_other_settings_is_another_release() -> None:
    releases = [record("1", 3.0, settings(2, "b")), record("1", 2.0, settings(2, "b")),
                record("1", 1.0, settings(2, "a"))]
    assert to_restore(releases, RUNNING) is releases[2]


def test_a_scaled_release_is_still_the_same() -> None:
    releases = [record("2", 3.0, settings(8, "b")), record("2", 2.0, settings(2, "b")),
                record("1", 1.0, settings(2, "a"))]
    assert to_restore(releases, RUNNING) is releases[2]


def test_a_record_holds_the_whole_stack() -> None:
    assert record("1", 0).stack == Stack({"services": {"app": {
        "image": "app:1", "deploy": {"replicas": 2}}}})


def test_releases_are_listed_newest_first() -> None:
    first, second, third = record("1", 1.0), record("2", 2.0), record("3", 3.0)
    with reached(holding(asdict(second), asdict(third), asdict(first))) as engine:
        assert releases.history(engine) == [third, second, first]


def test_a_later_versions_fields_are_ignored() -> None:
    with reached(holding({**asdict(record("1", 1.0)), "schema": "0001", "weather": []})) as engine:
        assert releases.history(engine) == [record("1", 1.0)]


def test_a_record_without_a_probe_is_read() -> None:
    older = {name: value for name, value in asdict(record("1", 1.0)).items() if name != "probe"}
    with reached(holding(older)) as engine:
        assert releases.history(engine) == [record("1", 1.0)]


def test_other_configs_are_not_records() -> None:
    fake = holding(asdict(record("1", 1.0)))
    fake.kinds["configs"]["lock"] = {"ID": "lock", "Spec": {"Name": "tally-lock", "Labels": {}}}
    with reached(fake) as engine:
        assert releases.history(engine) == [record("1", 1.0)]
        releases.forget_all(engine)
    assert set(fake.kinds["configs"]) == {"lock"}


def test_an_eleventh_release_replaces_the_oldest() -> None:
    made = [record(str(number), 1000.0 + number / 8) for number in range(KEPT + 1)]
    with reached(FakeEngine()) as engine:
        for each in made:
            save(engine, each)
        assert releases.history(engine) == made[:0:-1]


def test_a_changed_service_changes_only_its_own_hash() -> None:
    label = {NAMESPACE: "tally"}
    fake = FakeEngine()
    fake.kinds["services"] = {name: {"ID": name, "Spec": {
        "Name": f"tally_{name}", "Labels": label, "Image": "one"}} for name in ("app", "postgres")}
    fake.kinds["services"]["other"] = {"ID": "other", "Spec": {"Name": "other", "Labels": {}}}
    with reached(fake) as engine:
        before = services.spec_hashes(engine)
        fake.kinds["services"]["app"]["Spec"]["Image"] = "two"
        after = services.spec_hashes(engine)
    assert set(before) == set(after) == {"app", "postgres"}
    assert (before["app"] != after["app"], before["postgres"] == after["postgres"]) == (True, True)


def test_a_restarted_update_leaves_the_services_hash_unchanged() -> None:
    fake = FakeEngine()
    fake.kinds["services"]["app"] = {"ID": "app", "Spec": {
        "Name": "tally_app", "Labels": {NAMESPACE: "tally"}}}
    with reached(fake) as engine:
        before = services.definitions(engine), services.spec_hashes(engine)
        fake.kinds["services"]["app"]["Spec"]["Labels"][RESTARTED_AT] = "1005"
        assert (services.definitions(engine), services.spec_hashes(engine)) == before


ONE, TWO, THREE = Revision("1", None), Revision("2", "1"), Revision("3", "2", "older code needs it")


def test_a_migrations_result_replaces_its_start() -> None:
    with reached(FakeEngine()) as engine:
        assert (schema.applied(engine), schema.possible(engine)) == (None, None)
        schema.note_begun(engine, [ONE])
        assert (schema.applied(engine), schema.possible(engine)) == (None, (ONE,))
        schema.note_applied(engine, [ONE])
        assert schema.applied(engine) == schema.possible(engine) == (ONE,)


def test_an_unfinished_migration_may_have_been_applied() -> None:
    with reached(FakeEngine()) as engine:
        schema.note_applied(engine, [ONE])
        schema.note_begun(engine, [ONE, TWO, THREE])
        assert schema.applied(engine) == (ONE,)
        assert schema.possible(engine) == (ONE, TWO, THREE)


def test_an_older_releases_migration_keeps_the_later_ones() -> None:
    with reached(FakeEngine()) as engine:
        schema.note_applied(engine, [ONE, TWO, THREE])
        schema.note_applied(engine, [ONE])
        assert schema.applied(engine) == (ONE, TWO, THREE)
