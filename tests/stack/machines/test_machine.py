"""Commands run on this machine and return their result, whatever it is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.errors import Locked
from stack.inventory.settings import ROOT
from stack.machines.local import LocalMachine
from stack.machines.machine import CommandFailed, Completed
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

# Holds a lock file until it is killed.
HOLD = """
import sys, time
from stack.machines.local import LocalMachine
with LocalMachine().exclusively(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_commands_output_and_code_are_returned(machine: LocalMachine) -> None:
    done = machine.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert done == Completed(3, "out\n", "err\n")
    assert not done.ok


def test_only_exit_code_zero_is_a_success() -> None:
    assert [Completed(code, "", "").ok for code in (0, 1, -9)] == [True, False, False]


def test_a_command_gets_its_input(machine: LocalMachine) -> None:
    assert machine.run(["cat"], stdin="Grüße\n").stdout == "Grüße\n"


@pytest.fixture
def silent_terminal() -> Iterator[None]:
    """Give this process a stdin on which nothing ever arrives."""
    read, write = os.pipe()
    before = os.dup(0)
    os.dup2(read, 0)
    yield
    os.dup2(before, 0)
    for descriptor in (read, write, before):
        os.close(descriptor)


@pytest.mark.usefixtures("silent_terminal")
def test_a_command_never_waits_for_somebody_to_type(machine: LocalMachine) -> None:
    assert machine.run(["cat"], timeout=5) == Completed(0, "", "")


def test_variables_are_added_to_the_environment(
        machine: LocalMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTER", "one")
    monkeypatch.setenv("INNER", "one")
    done = machine.run(["sh", "-c", 'echo "$OUTER $INNER"'], env={"INNER": "two"})
    assert done.stdout == "one two\n"


def test_a_command_runs_in_its_folder(machine: LocalMachine, tmp_path: Path) -> None:
    assert machine.run(["pwd", "-P"], cwd=tmp_path).stdout == f"{tmp_path.resolve()}\n"


def test_arguments_are_not_read_by_a_shell(machine: LocalMachine) -> None:
    assert machine.run(["echo", "$HOME; *"]).stdout == "$HOME; *\n"


def test_a_command_that_times_out_is_killed(machine: LocalMachine, tmp_path: Path) -> None:
    begun = time.monotonic()
    done = machine.run(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"], timeout=1)
    assert done == Completed(124, "", "no answer within 1 s")
    assert time.monotonic() - begun < 10
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_command_that_is_missing_is_named(machine: LocalMachine) -> None:
    assert machine.run(["no-such-command", "--version"]) \
        == Completed(127, "", "no-such-command: not found")


def test_output_that_is_not_text_is_still_shown(machine: LocalMachine) -> None:
    done = machine.run(["sh", "-c", r"printf 'a\377b'"])
    assert done == Completed(0, "a\ufffdb", "")


def test_a_very_long_output_is_complete(machine: LocalMachine) -> None:
    done = machine.run(["sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; echo end >&2"])
    assert (len(done.stdout), done.stderr) == (5_000_000, "end\n")


@pytest.mark.parametrize(("stdout", "stderr", "line"), [
    ("one\ntwo\n", "", "two"),
    ("one\n", "three\nfour\n\n", "four"),
    ("one\n", "  four  \n", "four"),
    ("", "", ""),
])
def test_the_last_line_is_the_end_of_the_output(stdout: str, stderr: str, line: str) -> None:
    assert Completed(1, stdout, stderr).last_line == line


def test_a_command_that_must_succeed_returns_its_output(machine: LocalMachine) -> None:
    assert machine.must(["echo", "well"]) == "well\n"


def test_a_command_that_must_succeed_and_fails_is_an_error(machine: LocalMachine) -> None:
    with pytest.raises(CommandFailed) as raised:
        machine.must(["sh", "-c", "echo working; echo cause >&2; exit 3"])
    assert raised.value.message == \
        "sh -c echo working; echo cause >&2; exit 3 … ended with 3: cause"
    assert raised.value.completed == Completed(3, "working\n", "cause\n")
    assert raised.value.code == 1


def test_an_error_quotes_only_the_commands_beginning(machine: LocalMachine) -> None:
    command = ["ls", "--color=never", "--quote-name", "--all", "/nonexistent"]
    assert error_of(lambda: machine.must(command), CommandFailed).startswith(
        "ls --color=never --quote-name … ended with 2: ")


def test_a_file_that_cant_be_run_is_named(machine: LocalMachine, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    assert machine.run([str(tmp_path / "data")]) \
        == Completed(126, "", f"{tmp_path}/data: Permission denied")


def test_a_folder_that_is_missing_is_named(machine: LocalMachine, tmp_path: Path) -> None:
    assert machine.run(["pwd"], cwd=tmp_path / "gone") \
        == Completed(127, "", f"{tmp_path}/gone: not found")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture
def careless() -> Iterator[None]:
    """Make new files writable for everybody, unless a command sets other permissions."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless")
def test_a_file_is_written_in_one_step_with_its_folders_and_mode(
        machine: LocalMachine, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "it's a $HOME.conf"
    assert machine.write(str(path), "Grüße\n$HOME\n", "0640")
    assert path.read_text() == "Grüße\n$HOME\n"
    assert (mode(path), mode(path.parent)) == (0o640, 0o755)
    assert list(path.parent.iterdir()) == [path]


def test_an_unchanged_file_is_not_touched(machine: LocalMachine, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text\n")
    before = path.stat()
    assert not machine.write(str(path), "text\n")
    assert path.stat() == before


def test_a_file_with_other_content_is_replaced(
        machine: LocalMachine, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a longer text\n")
    assert machine.write(str(path), "text\n")
    assert (path.read_text(), mode(path)) == ("text\n", 0o644)


def test_a_file_that_cant_be_written_is_an_error(machine: LocalMachine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    with pytest.raises(CommandFailed):
        machine.write(str(tmp_path / "file" / "below"), "text\n")


def test_a_file_is_read(machine: LocalMachine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "empty").touch()
    assert machine.read(str(tmp_path / "file")) == "text\n"
    assert machine.read(str(tmp_path / "empty")) == ""


def test_a_missing_file_reads_as_none(machine: LocalMachine, tmp_path: Path) -> None:
    assert machine.read(str(tmp_path / "file")) is None


def test_a_folder_of_this_machine_is_used_where_it_is(
        machine: LocalMachine, tmp_path: Path) -> None:
    with machine.holding(tmp_path) as there:
        assert there == tmp_path


def test_a_second_command_is_refused_while_the_first_holds_the_lock(
        machine: LocalMachine, tmp_path: Path) -> None:
    lock = str(tmp_path / "bootstrap.lock")
    with machine.exclusively(lock):
        assert error_of(machine.exclusively(lock).__enter__, Locked) == (
            "another ./fab bootstrap is at work on this machine: try again when it has ended")


def test_a_failed_command_releases_the_lock(
        machine: LocalMachine, tmp_path: Path) -> None:
    lock = str(tmp_path / "bootstrap.lock")
    with pytest.raises(ZeroDivisionError), machine.exclusively(lock):
        raise ZeroDivisionError
    with machine.exclusively(lock):
        assert error_of(machine.exclusively(lock).__enter__, Locked)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_program_releases_its_lock(
        machine: LocalMachine, tmp_path: Path, end: signal.Signals) -> None:
    lock = str(tmp_path / "bootstrap.lock")
    with subprocess.Popen([sys.executable, "-c", HOLD, lock], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        assert error_of(machine.exclusively(lock).__enter__, Locked)
        holder.send_signal(end)
    with machine.exclusively(lock):
        assert holder.returncode == -end
