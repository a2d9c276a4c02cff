"""Without a terminal, a step is one plain line."""

import io
import os
import re
import threading
import time
from dataclasses import dataclass

import pytest
from rich.console import Console

from stack import console, progress
from stack.errors import Locked, Refused, Several
from stack.progress import Step
from tests.support.failing import error_of
from tests.support.terminal import Terminal

pytestmark = pytest.mark.unit


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed, with every duration set to 0.0 s."""
    return re.sub(r"\(\d+\.\d s\)", "(0.0 s)", capsys.readouterr().out)


def test_a_step_that_says_nothing_is_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("labels"):
        pass
    assert said(capsys) == "  labels         unchanged (0.0 s)\n"


def test_a_step_says_what_it_changed(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("images") as current:
        current.changed("built app, postgres")
    assert said(capsys) == "  images         built app, postgres (0.0 s)\n"


def test_long_work_is_announced_in_a_separate_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("images") as current:
        current.doing("building app")
        assert capsys.readouterr().out == "  images         building app …\n"
        current.changed("built app")
    assert said(capsys) == "  images         built app (0.0 s)\n"


def test_a_failed_step_says_so_and_the_error_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        with progress.step("update"):
            raise KeyboardInterrupt
    assert said(capsys) == "  update         failed (0.0 s)\n"


def test_a_step_shows_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    with progress.step("schema"):
        time.sleep(0.26)
    most = time.monotonic() - begun
    told = re.search(r"\((\d+\.\d) s\)", capsys.readouterr().out)
    assert told and 0.3 <= float(told[1]) <= most + 0.05


def test_a_long_line_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("x" * 500)
    assert capsys.readouterr().out == "x" * 500 + "\n"


def test_a_plain_line_is_printed_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("INFO [alembic] [/srv] [red]1.4.0[/red]")
    assert capsys.readouterr().out == "INFO [alembic] [/srv] [red]1.4.0[/red]\n"


def test_quoted_output_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    console.block(["first [x]", "", "second"])
    assert re.split(r" *\n", capsys.readouterr().out) == ["    first [x]", "", "    second", ""]


def test_without_a_terminal_there_is_no_color(capsys: pytest.CaptureFixture[str]) -> None:
    console.heading("Deploy")
    with progress.step("verdict") as current:
        current.found("1.4.0+57 runs")
    assert "\x1b" not in capsys.readouterr().out


def test_without_a_terminal_the_answer_is_no(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert not console.confirm("Remove the stack?")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", [
    "INFO [alembic.runtime] Running upgrade", "stat [/srv/serve]: no such file", ":smile:"])
def test_output_of_docker_or_a_migration_is_printed_unchanged(
        capsys: pytest.CaptureFixture[str], text: str) -> None:
    console.heading(text)
    with progress.step("schema") as current:
        current.doing(text)
        current.changed(text)
    console.say(text)
    assert said(capsys).splitlines() == [
        text, f"  schema         {text} …", f"  schema         {text} (0.0 s)", text]


def test_a_closed_terminal_means_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "OUT", Console(force_terminal=True, file=io.StringIO()))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert not console.confirm("Remove the stack?")


@dataclass(frozen=True)
class Place:
    """A stand-in for a machine, with only its name."""

    name: str


A, B, C = PLACES = Place("a"), Place("b"), Place("c")


def test_a_single_machine_is_not_named(capsys: pytest.CaptureFixture[str]) -> None:
    def work(place: Place, current: Step) -> str:
        current.changed("installed")
        return place.name
    assert progress.together("docker", [A], work, alone=True) == ["a"]
    assert said(capsys) == "  docker         installed (0.0 s)\n"


def test_unchanged_on_all_machines_is_one_line(
        capsys: pytest.CaptureFixture[str]) -> None:
    assert progress.together("docker", PLACES, lambda place, current: place.name) == ["a", "b", "c"]
    assert said(capsys) == "  docker         unchanged (0.0 s)\n"


def test_otherwise_each_machine_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work(place: Place, current: Step) -> None:
        if place != B:
            current.changed(f"installed [{place.name}]")
    progress.together("docker", PLACES, work)
    assert sorted(said(capsys).splitlines()) == [
        "  docker         a  installed [a] (0.0 s)", "  docker         b  unchanged (0.0 s)",
        "  docker         c  installed [c] (0.0 s)"]


def test_long_work_is_announced_with_its_machine(capsys: pytest.CaptureFixture[str]) -> None:
    progress.together("docker", [A, B], lambda place, current: current.doing("installing it"))
    assert sorted(said(capsys).splitlines()) == [
        "  docker         a  installing it …", "  docker         b  installing it …",
        "  docker         unchanged (0.0 s)"]


def test_results_come_in_the_machines_order() -> None:
    def work(place: Place, current: Step) -> str:
        time.sleep(0.2 if place == A else 0)
        return place.name
    assert progress.together("docker", PLACES, work) == ["a", "b", "c"]


def test_machines_are_worked_on_in_parallel() -> None:
    meeting = threading.Barrier(len(PLACES))
    progress.together("docker", PLACES, lambda place, current: meeting.wait(timeout=10))
    assert not meeting.broken


def test_every_machines_error_is_reported_after_all_have_ended(
        capsys: pytest.CaptureFixture[str]) -> None:
    ended = []

    def work(place: Place, current: Step) -> None:
        if place != C:
            raise Refused(f"{place.name} has no room", "make some")
        time.sleep(0.3)
        ended.append(place)
    with pytest.raises(Several) as raised:
        progress.together("preflight", PLACES, work)
    assert str(raised.value) == "a has no room: make some\nb has no room: make some"
    assert ended == [C]
    assert sorted(said(capsys).splitlines()) == [
        "  preflight      a  failed (0.0 s)", "  preflight      b  failed (0.0 s)",
        "  preflight      c  unchanged (0.0 s)"]


def test_a_single_machines_error_is_unchanged() -> None:
    def work(place: Place, current: Step) -> None:
        if place == B:
            raise Locked("b is locked")
    assert error_of(lambda: progress.together("docker", PLACES, work), Locked) == "b is locked"


def test_a_bug_on_one_machine_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        progress.together("docker", PLACES, lambda place, current: 1 // 0)


def test_a_spinner_is_one_line_however_narrow_the_terminal(
        monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(width=30)
    monkeypatch.setattr(console, "OUT", terminal.console)
    with progress.step("images") as current:
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
    progress.together("docker", [A], work)
    assert standing == ["docker: a  installing it"]
    assert [line.split()[0] for line in terminal.screen()] == ["something", "docker"]


def test_with_a_report_on_stdout_progress_is_on_stderr(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Put back when the test ends.
    monkeypatch.setattr(console, "OUT", console.OUT)
    console.leave_stdout()
    console.say("x" * 500)
    assert capsys.readouterr() == ("", "x" * 500 + "\n")


def test_a_log_in_color_has_no_spinner(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "OUT", console.OUT)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    console.leave_stdout()
    with progress.step("images") as current:
        current.doing("building app")
        time.sleep(0.3)
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.sub(r"\d\.\d", "0.3", text) \
        == "  images         building app …\n  images         unchanged (0.3 s)\n"


def test_stderr_is_as_wide_as_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever stdout is: with --json it is usually a file.
    monkeypatch.setattr(console, "OUT", console.OUT)
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setenv("TERM", "xterm")
    manager, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        console.leave_stdout()
        assert (console.OUT.is_terminal, console.OUT.width) == (True, 72)
    os.close(manager)
