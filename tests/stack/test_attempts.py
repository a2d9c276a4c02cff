"""Of a change that failed it is remembered what was tried, by whom, and what came of it."""

import json
import time
from dataclasses import asdict

import pytest

from stack import attempts, console, lock
from stack.attempts import KEPT, Attempt
from stack.errors import (
    Locked, MigrationFailed, OperatorError, Refused, RestoreFailed, Several, UpdateFailed)
from tests.stack.engine_api import Engine, reached

pytestmark = pytest.mark.unit


def fail(engine: Engine, error: OperatorError) -> list[Attempt]:
    """Let a change fail that took 12 s; return what is remembered then."""
    with reached(engine) as client:
        with pytest.raises(OperatorError) as raised, \
                attempts.noted(client, "1.4.0+57", "0123456", time.time() - 12):
            raise error
        assert raised.value is error
        engine.failing = False
        return attempts.history(client)


@pytest.mark.parametrize(("error", "outcome"), [
    (MigrationFailed("it hung", "mend it"), "migration failed"),
    (UpdateFailed("it hung", "mend it"), "restored"),
    (RestoreFailed("it hung", "mend it"), "broken")])
def test_a_change_that_failed_is_remembered(error: OperatorError, outcome: str) -> None:
    found, = fail(Engine(), error)

    assert (found.version, found.commit, found.outcome, found.cause) \
        == ("1.4.0+57", "0123456", outcome, "it hung")
    assert found.who == lock.whoami()
    assert 12 <= found.seconds < 30 and abs(time.time() - found.at) < 30


def test_what_the_sites_watcher_met_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    met = {"requests": 40, "failures": 3}
    monkeypatch.setattr(console, "FACTS", {"probe": met})
    found, = fail(Engine(), UpdateFailed("it hung"))
    assert found.probe == met


@pytest.mark.parametrize("error", [Refused("no"), Locked("no"), Several([Refused("no")])])
def test_what_was_refused_is_not(error: OperatorError) -> None:
    assert fail(Engine(), error) == []


def test_an_engine_that_fails_hides_no_cause() -> None:
    assert fail(Engine(failing=True), UpdateFailed("it hung")) == []


def test_what_succeeds_is_not_an_attempt() -> None:
    with reached(Engine()) as client:
        with attempts.noted(client, "1.4.0+57", "0123456", time.time()):
            pass
        assert attempts.history(client) == []


def test_what_a_later_version_adds_to_an_attempt_is_left_out() -> None:
    known = Attempt("1.4.0+57", "0123456", "ada@example.org", 1.0, 1.0, "restored", "it hung")
    with reached(Engine()) as client:
        client.configs.create(name="tally-attempt-1", labels={attempts.LABEL: "failed"},
                              data=json.dumps({**asdict(known), "weather": "fine"}).encode())
        assert attempts.history(client) == [known]


def test_the_last_ten_are_kept_newest_first_until_all_are_forgotten() -> None:
    tried = [Attempt(f"1.4.0+{number}", "0123456", "ada@example.org", 1000.0 + number, 1.0,
                     "restored", "it hung") for number in range(KEPT + 2)]
    with reached(Engine()) as client:
        for each in tried:
            attempts.save(client, each)
        assert attempts.history(client) == tried[:1:-1]
        attempts.forget_all(client)
        assert attempts.history(client) == []
