"""The record of a failed change says what was tried, by whom, and with what result."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict

import pytest

from stack.errors import (
    Locked, MigrationFailed, OperatorError, Refused, RestoreFailed, Several, UpdateFailed)
from stack.state import failed_changes, lock
from stack.state.failed_changes import KEPT, Attempt
from tests.support.engine_api import FakeEngine, reached

pytestmark = pytest.mark.unit


def fail(fake: FakeEngine, error: OperatorError,
         met: Mapping[str, float] | None = None) -> list[Attempt]:
    """Let a change fail after 12 s; return its record."""
    with reached(fake) as engine:
        with pytest.raises(OperatorError) as raised, \
                failed_changes.noted(engine, "1.4.0+57", "0123456", time.time() - 12) as change:
            if met:
                change.keep_probe(met)
            raise error
        assert raised.value is error
        fake.failing = False
        return failed_changes.history(engine)


@pytest.mark.parametrize(("error", "outcome"), [
    (MigrationFailed("it hung", "mend it"), "migration failed"),
    (UpdateFailed("it hung", "mend it"), "restored"),
    (RestoreFailed("it hung", "mend it"), "broken")])
def test_a_failed_change_is_recorded(error: OperatorError, outcome: str) -> None:
    found, = fail(FakeEngine(), error)

    assert (found.version, found.commit, found.outcome, found.cause) \
        == ("1.4.0+57", "0123456", outcome, "it hung")
    assert found.who == lock.whoami()
    assert 12 <= found.seconds < 30 and abs(time.time() - found.at) < 30


def test_the_probes_failures_are_recorded() -> None:
    met = {"requests": 40, "failures": 3}
    found, = fail(FakeEngine(), UpdateFailed("it hung"), met)
    assert found.probe == met


@pytest.mark.parametrize("error", [Refused("no"), Locked("no"), Several([Refused("no")])])
def test_a_refused_change_is_not_recorded(error: OperatorError) -> None:
    assert fail(FakeEngine(), error) == []


def test_a_failing_engine_hides_no_cause() -> None:
    assert fail(FakeEngine(failing=True), UpdateFailed("it hung")) == []


def test_a_successful_change_is_not_recorded() -> None:
    with reached(FakeEngine()) as engine:
        with failed_changes.noted(engine, "1.4.0+57", "0123456", time.time()):
            pass
        assert failed_changes.history(engine) == []


def test_a_later_versions_fields_are_ignored() -> None:
    known = Attempt("1.4.0+57", "0123456", "ada@example.org", 1.0, 1.0, "restored", "it hung")
    with reached(FakeEngine()) as engine:
        engine.configs.create(name="tally-attempt-1", labels={failed_changes.LABEL: "failed"},
                              data=json.dumps({**asdict(known), "weather": "fine"}).encode())
        assert failed_changes.history(engine) == [known]


def test_the_last_ten_are_kept_until_all_are_removed() -> None:
    tried = [Attempt(f"1.4.0+{number}", "0123456", "ada@example.org", 1000.0 + number, 1.0,
                     "restored", "it hung") for number in range(KEPT + 2)]
    with reached(FakeEngine()) as engine:
        for each in tried:
            failed_changes.save(engine, each)
        assert failed_changes.history(engine) == tried[:1:-1]
        failed_changes.forget_all(engine)
        assert failed_changes.history(engine) == []
