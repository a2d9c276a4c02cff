"""A wait ends when its condition holds or at its deadline, and asks no more than needed."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from stack import waiting

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that advances only during a sleep."""
    clock = SimpleNamespace(now=100.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    return clock


def test_a_condition_that_already_holds_needs_no_wait(clock: SimpleNamespace) -> None:
    assert waiting.until(lambda: "yes", within=0) == "yes"
    assert clock.now == 100


def test_the_first_true_answer_ends_the_wait(clock: SimpleNamespace) -> None:
    answers = iter(["", "", "third", "fourth"])
    assert waiting.until(lambda: next(answers), within=60, every=0.5) == "third"
    assert clock.now == 101


def test_the_caller_may_choose_another_condition(clock: SimpleNamespace) -> None:
    answers = iter([["wrong"], ["wrong", "too"], []])
    assert waiting.until(lambda: next(answers), within=60, done=lambda wrong: not wrong) == []
    assert clock.now == pytest.approx(100.6)


def test_at_the_deadline_the_last_answer_is_returned(clock: SimpleNamespace) -> None:
    assert waiting.until(lambda: clock.now > 200, within=10, every=4) is False
    assert 110 <= clock.now <= 114


def test_an_error_ends_the_wait() -> None:
    def failing() -> Iterator[int]:
        raise KeyError("node")
    with pytest.raises(KeyError):
        waiting.until(failing, within=60)


def test_by_default_it_asks_three_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(waiting, "time", SimpleNamespace(
        monotonic=time.monotonic, sleep=pauses.append))
    answers = iter([False, True])
    assert waiting.until(lambda: next(answers), within=60)
    assert pauses == [0.3]
