"""A wait shows the tasks on a terminal, and their counts in a log."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stack import console, progress
from stack.console import task_table
from stack.console.task_table import TaskTable, most_telling
from stack.engine.engine import Engine
from stack.progress import HostNames
from stack.release import rollout
from stack.swarm.service_state import Progress, TaskLine
from tests.support.engine_api import FakeEngine
from tests.support.terminal import Terminal

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NODE = "node1" * 5
OLD = TaskLine("app", NODE, "1.4.0-57", "running", NOW - timedelta(days=3),
               NOW - timedelta(days=3), "", new=False)
NEW = TaskLine("app", NODE, "1.5.0-58", "starting", NOW - timedelta(seconds=12),
               NOW - timedelta(seconds=2), "", new=True)
FAILED = replace(NEW, state="failed", error="task: non-zero exit (1)")
HEADER = "  service       node     tag       state      age     error"


@pytest.fixture
def fake() -> FakeEngine:
    made = FakeEngine()
    made.kinds["nodes"] = {NODE: {"ID": NODE, "Description": {"Hostname": "tally-1"}}}
    return made


@pytest.fixture
def host_names(engine: Engine) -> HostNames:
    return lambda: rollout.host_names(engine)


def on(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let the console write to this terminal while the test lasts."""
    monkeypatch.setattr(console, "OUT", terminal.console)
    return terminal


def app(*lines: TaskLine) -> list[Progress]:
    return [Progress("app", 1, 2, lines=lines)]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return on(Terminal(), monkeypatch)


def drawn(table: TaskTable, now: Sequence[Progress], width: int = 80) -> list[str]:
    """Return what a table looks like on a terminal of this width."""
    terminal = Terminal(width)
    terminal.console.print(table.draw(now, NOW))
    return terminal.screen()


def test_each_task_is_a_line_marked_new_or_old(
        host_names: HostNames) -> None:
    assert drawn(TaskTable(host_names), app(OLD, NEW, FAILED)) == [
        "  app 1/2",
        HEADER,
        "  app      old  tally-1  1.4.0-57  running    3 d",
        "  app      new  tally-1  1.5.0-58  starting   12 s",
        "  app      new  tally-1  1.5.0-58  failed     12 s    task: non-zero exit (1)"]


def test_a_new_task_is_bold_and_an_old_one_dim(
        host_names: HostNames) -> None:
    terminal = Terminal()
    terminal.console.print(TaskTable(host_names).draw(app(OLD, NEW), NOW))
    assert "\x1b[1mnew\x1b[0m" in terminal.said
    assert "\x1b[2mold\x1b[0m" in terminal.said


def test_without_old_tasks_none_is_marked_new(host_names: HostNames) -> None:
    # As while a node is drained, or for unchanged services during a deploy.
    other = replace(OLD, service="postgres", new=True)
    now = [*app(OLD, NEW), Progress("postgres", 1, 1, lines=(other,))]
    assert drawn(TaskTable(host_names), now)[-1].split() == [
        "postgres", "tally-1", "1.4.0-57", "running", "3", "d"]


def test_new_tasks_stay_marked_when_the_old_ones_are_gone(host_names: HostNames) -> None:
    table = TaskTable(host_names)
    drawn(table, app(OLD, NEW))
    assert drawn(table, app(NEW))[-1].split()[:2] == ["app", "new"]


def test_an_error_is_cut_at_the_terminals_width(host_names: HostNames) -> None:
    long = replace(FAILED, error="no suitable node [x] (" + "y" * 200)
    lines = drawn(TaskTable(host_names), app(OLD, long), width=70)
    assert len(lines) == 4
    assert lines[-1] == "  app      new  tally-1  1.5.0-58  failed     12 s    no suitable nod…"


@pytest.mark.parametrize("width", [16, 20, 40, 60])
def test_no_line_is_wider_than_the_terminal(host_names: HostNames, width: int) -> None:
    long = replace(FAILED, error="no suitable node " * 20)
    assert len(drawn(TaskTable(host_names), app(OLD, NEW, long), width)) == 5


@pytest.mark.parametrize(("ago", "count"), [(59, 2), (61, 0)])
def test_a_failure_is_shown_for_a_minute(
        host_names: HostNames, ago: int, count: int) -> None:
    failed = replace(FAILED, changed=NOW - timedelta(seconds=ago))
    assert len(drawn(TaskTable(host_names), app(failed))[1:]) == count


def test_a_missing_node_is_blank_and_an_unknown_one_shows_its_id(
        host_names: HostNames) -> None:
    now = app(replace(OLD, node=""), replace(OLD, node="z" * 25))
    assert [line.split()[2] for line in drawn(TaskTable(host_names), now)[2:]] \
        == ["1.4.0-57", "z" * 12]


def test_an_engine_that_cant_name_the_nodes_is_asked_again(
        fake: FakeEngine, host_names: HostNames) -> None:
    table, fake.failing = TaskTable(host_names), True
    assert "node1node1no" in drawn(table, app(NEW))[-1]
    fake.failing = False
    assert "tally-1" in drawn(table, app(NEW))[-1]


def test_an_engine_that_doesnt_answer_leaves_one_line(host_names: HostNames) -> None:
    assert drawn(TaskTable(host_names), [Progress("app", 0, 0), Progress("postgres", 0, 0)]) \
        == ["  no answer from the engine"]


def test_a_short_terminal_omits_running_tasks(
        host_names: HostNames, monkeypatch: pytest.MonkeyPatch) -> None:
    on(Terminal(height=7), monkeypatch)
    lines = drawn(TaskTable(host_names), app(OLD, NEW, OLD, FAILED))
    assert [line.split()[4] for line in lines[2:-1]] == ["starting", "failed"]
    assert lines[-1] == "  and 2 more"


def test_failures_come_before_starting_tasks() -> None:
    assert most_telling([OLD, NEW, FAILED, OLD], 1) == [FAILED]
    assert most_telling([OLD, NEW, FAILED, OLD], 3) == [OLD, NEW, FAILED]


@pytest.mark.parametrize(("seconds", "text"), [
    (-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (200000, "2 d")])
def test_an_age_is_given_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert task_table.age(timedelta(seconds=seconds)) == text


def test_the_table_is_below_its_step_and_is_wiped_at_the_end(
        host_names: HostNames, terminal: Terminal) -> None:
    with progress.step("update") as current:
        current.doing("replacing tasks")
        with task_table.shown(host_names) as show:
            show(app(OLD, NEW))
            console.say("  note           something else")
            show(app(OLD, NEW, NEW))
            standing = terminal.screen()
        show(app(NEW))
        current.changed("done")
    assert standing[0] == "  note           something else"
    assert standing[1].endswith(" update: replacing tasks")
    assert [line.split()[0] for line in standing[2:]] == ["app", "service", "app", "app", "app"]
    left = terminal.screen()
    assert left[0] == "  note           something else"
    assert left[1].startswith("  update         done (")
    assert len(left) == 2


def test_an_error_wipes_the_table_too(
        host_names: HostNames, terminal: Terminal) -> None:
    with pytest.raises(KeyboardInterrupt), progress.step("update"), \
            task_table.shown(host_names) as show:
        show(app(OLD, NEW))
        raise KeyboardInterrupt
    assert [line.split()[:2] for line in terminal.screen()] == [["update", "failed"]]


def test_the_table_needs_no_step(
        host_names: HostNames, terminal: Terminal) -> None:
    with task_table.shown(host_names) as show:
        show(app(OLD, NEW))
        assert len(terminal.screen()) == 4
    assert terminal.screen() == []


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.removeprefix("  waiting        ")
            for line in capsys.readouterr().out.splitlines()]


def test_a_log_shows_the_counts_when_they_change(
        host_names: HostNames, capsys: pytest.CaptureFixture[str]) -> None:
    with task_table.shown(host_names) as show:
        show([Progress("app", 1, 2, lines=(OLD, NEW)), Progress("postgres", 1, 1)])
        show([Progress("app", 1, 2, lines=(NEW, NEW)), Progress("postgres", 1, 1)])
    assert capsys.readouterr().out == "  waiting        app 1/2, postgres 1/1 …\n"


def test_a_log_has_at_most_one_line_per_second(
        host_names: HostNames, capsys: pytest.CaptureFixture[str]) -> None:
    with task_table.shown(host_names) as show:
        for running in (0, 1, 2):
            show([Progress("app", running, 3)])
        time.sleep(1)
        show([Progress("app", 2, 3)])
    assert printed(capsys) == ["app 0/3 …", "app 2/3 …"]


def test_a_log_omits_complete_services(
        host_names: HostNames, capsys: pytest.CaptureFixture[str]) -> None:
    with task_table.shown(host_names) as show:
        show([Progress("app", 2, 2), Progress("postgres", 1, 1)])
    assert printed(capsys) == []


def test_a_log_shows_a_task_that_is_lost_again(
        host_names: HostNames, capsys: pytest.CaptureFixture[str]) -> None:
    with task_table.shown(host_names) as show:
        show([Progress("app", 1, 2)])
        show([Progress("app", 2, 2)])
        time.sleep(1)
        show([Progress("app", 1, 2)])
    assert printed(capsys) == ["app 1/2 …"] * 2


def test_a_log_says_that_the_engine_doesnt_answer(
        host_names: HostNames, capsys: pytest.CaptureFixture[str]) -> None:
    with task_table.shown(host_names) as show:
        show([Progress("app", 0, 0)])
    assert printed(capsys) == ["no answer from the engine …"]
