"""Away from a terminal a step is one plain line."""

import io
import re
import time

import pytest
from rich.console import Console

from stack import console

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
