"""Who waits sees the tasks on a terminal, and how many of them run in a log."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import docker
import pytest

from stack import console, live
from stack.live import TaskTable, most_telling
from stack.progress import Progress, TaskLine
from tests.stack.engine_api import Engine, reached
from tests.stack.terminal import Terminal

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
def engine() -> Engine:
    made = Engine()
    made.kinds["nodes"] = {NODE: {"ID": NODE, "Description": {"Hostname": "tally-1"}}}
    return made


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    with reached(engine) as client:
        yield client


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


def test_each_task_is_a_line_and_new_ones_are_told_from_old_ones(
        client: docker.DockerClient) -> None:
    assert drawn(TaskTable(client), app(OLD, NEW, FAILED)) == [
        "  app 1/2",
        HEADER,
        "  app      old  tally-1  1.4.0-57  running    3 d",
        "  app      new  tally-1  1.5.0-58  starting   12 s",
        "  app      new  tally-1  1.5.0-58  failed     12 s    task: non-zero exit (1)"]


def test_a_new_task_is_marked_by_weight_and_an_old_one_is_dim(
        client: docker.DockerClient) -> None:
    terminal = Terminal()
    terminal.console.print(TaskTable(client).draw(app(OLD, NEW), NOW))
    assert "\x1b[1mnew\x1b[0m" in terminal.said
    assert "\x1b[2mold\x1b[0m" in terminal.said


def test_without_old_tasks_none_is_new(client: docker.DockerClient) -> None:
    # As while a node is drained; and in a deploy, of services that stay as they are.
    other = replace(OLD, service="postgres", new=True)
    now = [*app(OLD, NEW), Progress("postgres", 1, 1, lines=(other,))]
    assert drawn(TaskTable(client), now)[-1].split() == [
        "postgres", "tally-1", "1.4.0-57", "running", "3", "d"]


def test_new_tasks_stay_marked_when_the_old_ones_are_gone(client: docker.DockerClient) -> None:
    table = TaskTable(client)
    drawn(table, app(OLD, NEW))
    assert drawn(table, app(NEW))[-1].split()[:2] == ["app", "new"]


def test_an_error_is_cut_where_the_terminal_ends(client: docker.DockerClient) -> None:
    long = replace(FAILED, error="no suitable node [x] (" + "y" * 200)
    lines = drawn(TaskTable(client), app(OLD, long), width=70)
    assert len(lines) == 4
    assert lines[-1] == "  app      new  tally-1  1.5.0-58  failed     12 s    no suitable nod…"


@pytest.mark.parametrize("width", [16, 20, 40, 60])
def test_no_line_is_wider_than_the_terminal(client: docker.DockerClient, width: int) -> None:
    long = replace(FAILED, error="no suitable node " * 20)
    assert len(drawn(TaskTable(client), app(OLD, NEW, long), width)) == 5


@pytest.mark.parametrize(("ago", "count"), [(59, 2), (61, 0)])
def test_a_failure_is_news_for_a_minute(
        client: docker.DockerClient, ago: int, count: int) -> None:
    failed = replace(FAILED, changed=NOW - timedelta(seconds=ago))
    assert len(drawn(TaskTable(client), app(failed))[1:]) == count


def test_a_task_without_a_node_has_none_and_an_unknown_node_its_id(
        client: docker.DockerClient) -> None:
    now = app(replace(OLD, node=""), replace(OLD, node="z" * 25))
    assert [line.split()[2] for line in drawn(TaskTable(client), now)[2:]] \
        == ["1.4.0-57", "z" * 12]


def test_an_engine_that_cant_name_the_nodes_is_asked_again(
        engine: Engine, client: docker.DockerClient) -> None:
    table, engine.failing = TaskTable(client), True
    assert "node1node1no" in drawn(table, app(NEW))[-1]
    engine.failing = False
    assert "tally-1" in drawn(table, app(NEW))[-1]


def test_an_engine_that_doesnt_answer_leaves_one_line(client: docker.DockerClient) -> None:
    assert drawn(TaskTable(client), [Progress("app", 0, 0), Progress("postgres", 0, 0)]) \
        == ["  the engine doesn't answer just now"]


def test_a_short_terminal_leaves_out_what_just_runs(
        client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    on(Terminal(height=7), monkeypatch)
    lines = drawn(TaskTable(client), app(OLD, NEW, OLD, FAILED))
    assert [line.split()[4] for line in lines[2:-1]] == ["starting", "failed"]
    assert lines[-1] == "  and 2 more"


def test_failures_come_before_what_is_on_its_way() -> None:
    assert most_telling([OLD, NEW, FAILED, OLD], 1) == [FAILED]
    assert most_telling([OLD, NEW, FAILED, OLD], 3) == [OLD, NEW, FAILED]


@pytest.mark.parametrize(("seconds", "text"), [
    (-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (200000, "2 d")])
def test_an_age_is_told_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert live.age(timedelta(seconds=seconds)) == text


def test_the_table_stands_below_its_step_and_is_wiped_at_the_end(
        client: docker.DockerClient, terminal: Terminal) -> None:
    with console.step("update") as current:
        current.doing("replacing tasks")
        with live.shown(client) as show:
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
        client: docker.DockerClient, terminal: Terminal) -> None:
    with pytest.raises(KeyboardInterrupt), console.step("update"), live.shown(client) as show:
        show(app(OLD, NEW))
        raise KeyboardInterrupt
    assert [line.split()[:2] for line in terminal.screen()] == [["update", "failed"]]


def test_without_a_step_there_is_a_table_all_the_same(
        client: docker.DockerClient, terminal: Terminal) -> None:
    with live.shown(client) as show:
        show(app(OLD, NEW))
        assert len(terminal.screen()) == 4
    assert terminal.screen() == []


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.removeprefix("  waiting        ")
            for line in capsys.readouterr().out.splitlines()]


def test_a_log_tells_the_counts_when_they_change(
        client: docker.DockerClient, capsys: pytest.CaptureFixture[str]) -> None:
    with live.shown(client) as show:
        show([Progress("app", 1, 2, lines=(OLD, NEW)), Progress("postgres", 1, 1)])
        show([Progress("app", 1, 2, lines=(NEW, NEW)), Progress("postgres", 1, 1)])
    assert capsys.readouterr().out == "  waiting        app 1/2, postgres 1/1 …\n"


def test_a_log_has_one_line_a_second_at_most(
        client: docker.DockerClient, capsys: pytest.CaptureFixture[str]) -> None:
    with live.shown(client) as show:
        for running in (0, 1, 2):
            show([Progress("app", running, 3)])
        time.sleep(1)
        show([Progress("app", 2, 3)])
    assert told(capsys) == ["app 0/3 …", "app 2/3 …"]


def test_a_log_says_nothing_of_services_that_have_all_their_tasks(
        client: docker.DockerClient, capsys: pytest.CaptureFixture[str]) -> None:
    with live.shown(client) as show:
        show([Progress("app", 2, 2), Progress("postgres", 1, 1)])
    assert told(capsys) == []


def test_a_log_tells_of_a_task_that_is_lost_again(
        client: docker.DockerClient, capsys: pytest.CaptureFixture[str]) -> None:
    with live.shown(client) as show:
        show([Progress("app", 1, 2)])
        show([Progress("app", 2, 2)])
        time.sleep(1)
        show([Progress("app", 1, 2)])
    assert told(capsys) == ["app 1/2 …"] * 2


def test_a_log_says_that_the_engine_doesnt_answer(
        client: docker.DockerClient, capsys: pytest.CaptureFixture[str]) -> None:
    with live.shown(client) as show:
        show([Progress("app", 0, 0)])
    assert told(capsys) == ["the engine doesn't answer just now …"]
