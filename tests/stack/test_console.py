"""Away from a terminal a step is one plain line."""

import io
import os
import re
import threading
import time
from dataclasses import dataclass

import pytest
from rich.console import Console

from stack import console
from stack.console import Step
from stack.errors import Locked, Refused, Several
from tests.stack.failing import error_of
from tests.stack.terminal import Terminal

pytestmark = pytest.mark.unit


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed, as on a machine on which nothing takes long."""
    return re.sub(r"\(\d+\.\d s\)", "(0.0 s)", capsys.readouterr().out)


def test_a_step_that_says_nothing_is_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    with console.step("labels"):
        pass
    assert said(capsys) == "  labels         unchanged (0.0 s)\n"


def test_a_step_says_what_it_changed(capsys: pytest.CaptureFixture[str]) -> None:
    with console.step("images") as current:
        current.changed("built app, postgres")
    assert said(capsys) == "  images         built app, postgres (0.0 s)\n"


def test_long_work_is_announced_in_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with console.step("images") as current:
        current.doing("building app")
        assert capsys.readouterr().out == "  images         building app …\n"
        current.changed("built app")
    assert said(capsys) == "  images         built app (0.0 s)\n"


def test_a_failed_step_says_so_and_the_error_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        with console.step("update"):
            raise KeyboardInterrupt
    assert said(capsys) == "  update         failed (0.0 s)\n"


def test_a_step_tells_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    with console.step("schema"):
        time.sleep(0.26)
    most = time.monotonic() - begun
    told = re.search(r"\((\d+\.\d) s\)", capsys.readouterr().out)
    assert told and 0.3 <= float(told[1]) <= most + 0.05


def test_a_long_line_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("x" * 500)
    assert capsys.readouterr().out == "x" * 500 + "\n"


def test_a_plain_line_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("INFO [alembic] [/srv] [red]1.4.0[/red]")
    assert capsys.readouterr().out == "INFO [alembic] [/srv] [red]1.4.0[/red]\n"


def test_quoted_output_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    console.block(["first [x]", "", "second"])
    assert re.split(r" *\n", capsys.readouterr().out) == ["    first [x]", "", "    second", ""]


def test_nothing_is_coloured_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.heading("Deploy")
    with console.step("verdict") as current:
        current.found("1.4.0+57 runs")
    assert "\x1b" not in capsys.readouterr().out


def test_without_a_terminal_nobody_says_yes(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert not console.confirm("Remove the stack?")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", [
    "INFO [alembic.runtime] Running upgrade", "stat [/srv/serve]: no such file", ":smile:"])
def test_what_docker_or_a_migration_says_is_printed_as_it_is(
        capsys: pytest.CaptureFixture[str], text: str) -> None:
    console.heading(text)
    with console.step("schema") as current:
        current.doing(text)
        current.changed(text)
    console.say(text)
    assert said(capsys).splitlines() == [
        text, f"  schema         {text} …", f"  schema         {text} (0.0 s)", text]


def test_without_somebody_to_answer_nobody_says_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "OUT", Console(force_terminal=True, file=io.StringIO()))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert not console.confirm("Remove the stack?")


@dataclass(frozen=True)
class Place:
    """A machine, as far as a line of progress tells of it."""

    name: str


A, B, C = PLACES = Place("a"), Place("b"), Place("c")


def test_alone_a_machine_is_not_named(capsys: pytest.CaptureFixture[str]) -> None:
    def work(place: Place, current: Step) -> str:
        current.changed("installed")
        return place.name
    assert console.together("docker", [A], work, alone=True) == ["a"]
    assert said(capsys) == "  docker         installed (0.0 s)\n"


def test_what_is_unchanged_on_all_machines_is_one_line(
        capsys: pytest.CaptureFixture[str]) -> None:
    assert console.together("docker", PLACES, lambda place, current: place.name) == ["a", "b", "c"]
    assert said(capsys) == "  docker         unchanged (0.0 s)\n"


def test_otherwise_each_machine_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work(place: Place, current: Step) -> None:
        if place != B:
            current.changed(f"installed [{place.name}]")
    console.together("docker", PLACES, work)
    assert sorted(said(capsys).splitlines()) == [
        "  docker         a  installed [a] (0.0 s)", "  docker         b  unchanged (0.0 s)",
        "  docker         c  installed [c] (0.0 s)"]


def test_long_work_is_announced_with_its_machine(capsys: pytest.CaptureFixture[str]) -> None:
    console.together("docker", [A, B], lambda place, current: current.doing("installing it"))
    assert sorted(said(capsys).splitlines()) == [
        "  docker         a  installing it …", "  docker         b  installing it …",
        "  docker         unchanged (0.0 s)"]


def test_results_come_in_the_machines_order() -> None:
    def work(place: Place, current: Step) -> str:
        time.sleep(0.2 if place == A else 0)
        return place.name
    assert console.together("docker", PLACES, work) == ["a", "b", "c"]


def test_machines_are_worked_on_side_by_side() -> None:
    meeting = threading.Barrier(len(PLACES))
    console.together("docker", PLACES, lambda place, current: meeting.wait(timeout=10))
    assert not meeting.broken


def test_every_machines_error_is_told_once_all_have_ended(
        capsys: pytest.CaptureFixture[str]) -> None:
    ended = []

    def work(place: Place, current: Step) -> None:
        if place != C:
            raise Refused(f"{place.name} has no room", "make some")
        time.sleep(0.3)
        ended.append(place)
    with pytest.raises(Several) as raised:
        console.together("preflight", PLACES, work)
    assert str(raised.value) == "a has no room: make some\nb has no room: make some"
    assert ended == [C]
    assert sorted(said(capsys).splitlines()) == [
        "  preflight      a  failed (0.0 s)", "  preflight      b  failed (0.0 s)",
        "  preflight      c  unchanged (0.0 s)"]


def test_one_machines_error_stays_what_it_is() -> None:
    def work(place: Place, current: Step) -> None:
        if place == B:
            raise Locked("b is locked")
    assert error_of(lambda: console.together("docker", PLACES, work), Locked) == "b is locked"


def test_a_bug_on_one_machine_goes_on_as_such() -> None:
    with pytest.raises(ZeroDivisionError):
        console.together("docker", PLACES, lambda place, current: 1 // 0)


def test_a_spinner_is_one_line_however_narrow_the_terminal(
        monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(width=30)
    monkeypatch.setattr(console, "OUT", terminal.console)
    with console.step("images") as current:
        current.doing("building [app], postgres, socket-proxy, traefik")
        for _ in range(3):
            console.say("built")
        assert [line[2:] for line in terminal.screen() if line != "built"] \
            == ["images: building [app], pos…"]
    assert "".join(terminal.screen()).startswith("built" * 3 + "  images         unchanged (")


def test_spinners_of_several_machines_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(console, "OUT", terminal.console)
    standing: list[str] = []

    def work(place: Place, current: Step) -> None:
        current.doing("installing it")
        console.say("something")
        standing.extend(line[2:] for line in terminal.screen() if line != "something")
    console.together("docker", [A], work)
    assert standing == ["docker: a  installing it"]
    assert [line.split()[0] for line in terminal.screen()] == ["something", "docker"]


def test_where_stdout_is_for_programs_people_are_told_on_stderr(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Put back when the test ends.
    monkeypatch.setattr(console, "OUT", console.OUT)
    console.leave_stdout()
    console.say("x" * 500)
    assert capsys.readouterr() == ("", "x" * 500 + "\n")


def test_a_log_in_colour_has_no_spinner(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "OUT", console.OUT)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    console.leave_stdout()
    with console.step("images") as current:
        current.doing("building app")
        time.sleep(0.3)
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.sub(r"\d\.\d", "0.3", text) \
        == "  images         building app …\n  images         unchanged (0.3 s)\n"


def test_on_a_terminal_stderr_is_as_wide_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever stdout is: with --json it is mostly a file.
    monkeypatch.setattr(console, "OUT", console.OUT)
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setenv("TERM", "xterm")
    manager, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        console.leave_stdout()
        assert (console.OUT.is_terminal, console.OUT.width) == (True, 72)
    os.close(manager)
