"""A log command prints the log that was asked for, and nothing else."""

import time

import pytest

from stack import console
from stack.commands import logs
from stack.errors import OperatorError
from stack.release import failure
from stack.release.rollout import NotArrived
from stack.release.target import Target
from stack.swarm.task_logs import Reader
from tests.support.failing import error_of
from tests.support.log_api import Logging, wrote
from tests.support.managers import Unreachable

pytestmark = pytest.mark.unit


@pytest.fixture
def target(two: Target, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setattr(Target, "reach", lambda why: two)
    monkeypatch.setattr(console, "leave_stdout", lambda: None)
    return two


@pytest.mark.parametrize(("lines", "shown", "tail"), [
    ("all", "abcd", "all"), ("9", "abcd", "9"), ("2", "cd", "2"), ("0", "", "1")])
def test_the_last_lines_of_all_tasks_are_shown(
        api: Logging, target: Target, capsys: pytest.CaptureFixture[str], lines: str,
        shown: str, tail: str) -> None:
    api.task(1, "one", wrote(1, "a"), wrote(4, "d"))
    api.task(2, "two", wrote(2, "b"), wrote(3, "c"))
    logs.logs("app", follow=False, lines=lines)
    assert "".join(line[-1] for line in capsys.readouterr().out.splitlines()) == shown
    assert api.asked == [("t1", tail), ("t2", tail)]


def test_an_unreadable_log_is_an_error_after_the_others(
        api: Logging, target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    api.node("three", "10.0.0.3")
    api.task(1, "one", wrote(1, "a"))
    api.task(2, "three", wrote(1, "b"))
    assert error_of(lambda: logs.logs("app", follow=False, lines="100"), OperatorError) == (
        "the log of app.2@host-three can't be read: its machine can't be reached, or isn't in "
        "the inventory: ./fab status")
    assert capsys.readouterr().out == "app.1@host-one | a\n"


def test_following_continues_until_ctrl_c_and_complains_once(
        api: Logging, target: Target, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    api.node("three", "10.0.0.3")
    api.task(1, "one", wrote(1, "old"))
    api.task(2, "three", wrote(1, "lost"))
    rounds = iter(["a", "b"])

    def sleep(seconds: float) -> None:
        text = next(rounds, None)
        if text is None:
            raise KeyboardInterrupt
        api.written["t1"].append(wrote(2, text))
    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(SystemExit) as ended:
        logs.logs("app", follow=True, lines="0")
    assert ended.value.code == 130
    assert capsys.readouterr().out.splitlines() == [
        "the log of app.2@host-three can't be read: its machine can't be reached, or isn't in the "
        "inventory", "app.1@host-one | a", "app.1@host-one | b"]


@pytest.mark.parametrize("lines", ["-1", "ten", "", "1e3"])
def test_an_invalid_number_of_lines_is_refused(lines: str) -> None:
    assert error_of(lambda: logs.logs("app", follow=False, lines=lines)) \
        == f"--lines={lines!r}: it should be a number, or all"


def test_a_missing_service_is_refused(target: Target) -> None:
    assert error_of(lambda: logs.logs("mail", follow=False, lines="1")) \
        == "there is no service 'mail': choose one of: app"


def test_the_cause_of_a_failure_is_the_end_of_the_tasks_own_log(
        api: Logging, target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    api.task(1, "one", *(wrote(second, f"line {second}") for second in range(30)))
    api.task(2, "two", wrote(59, "another task's"))
    failure.show_cause(target, NotArrived("app: exited", task="t1"))
    assert capsys.readouterr().out.splitlines() == [
        f"    line {second}" for second in range(30 - failure.CULPRIT_LINES, 30)]


def test_the_cause_of_a_failure_is_what_docker_said(
        target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    failure.show_cause(target, NotArrived("refused", said=["no such image"]))
    assert capsys.readouterr().out == "    no such image\n"


def test_an_unreadable_cause_of_a_failure_stops_nothing(
        api: Logging, target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    api.failing = True
    failure.show_cause(target, NotArrived("app: exited", task="t1"))
    assert capsys.readouterr().out == "    its log can't be read: the Swarm has no leader\n"
    api.failing = False
    # No version of the Engine API returns this.
    api.kinds["tasks"]["t1"] = {"ID": "t1"}
    failure.show_cause(target, NotArrived("app: exited", task="t1"))
    assert capsys.readouterr().out == "    its log can't be read: 'Status'\n"


def test_following_ends_when_no_manager_can_be_reached(api: Logging, target: Target) -> None:
    cut_off = Target(target.fleet, Unreachable(), target.engine, target.cli, target.settings)
    assert error_of(lambda: logs.go_on(cut_off, Reader(target, "app", {})), OperatorError) \
        == "lost contact with every manager: ./fab logs again"
