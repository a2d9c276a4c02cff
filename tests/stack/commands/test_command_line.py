"""A mistyped command line is one line: the cause, what was probably meant, the next command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

import fabfile
from stack.commands.command_line import Program
from stack.inventory.settings import ROOT


@task
def deploy(context: Context, probe_budget: str = "", json: bool = False) -> None:
    """Deploy."""
    print(f"budget={probe_budget} json={json}")


@task
def logs(context: Context, service: str, follow: bool = False) -> None:
    """Show a log."""
    print(f"service={service} follow={follow}")


@task(name="quick")
def quick(context: Context) -> None:
    """Test."""


@task
def break_off(context: Context) -> None:
    """Lose a connection."""
    raise BrokenPipeError


TASKS = Collection(deploy, logs, break_off, Collection("test", quick))
MISTYPED = [
    ("deplyo", "there is no task 'deplyo' (did you mean deploy?): ./fab --list"),
    ("test.quikc", "there is no task 'test.quikc' (did you mean test.quick?): ./fab --list"),
    ("xyzzy", "there is no task 'xyzzy': ./fab --list"),
    ("it's", "there is no task \"it's\": ./fab --list"),
    ("--help deplyo", "there is no task 'deplyo' (did you mean deploy?): ./fab --list"),
    ("deplyo --json", "there is no task 'deplyo' (did you mean deploy?): ./fab --list"),
    ("deploy lgos",
     "'lgos' is neither a task nor an argument of deploy (did you mean logs?): ./fab --list"),
    ("deploy --json=3", "'3' is neither a task nor an argument of deploy: ./fab --list"),
    ("--list tset", "there is no group of tasks 'tset' (did you mean test?): ./fab --list"),
    ("deploy --probe-bugdet 3", "deploy has no option '--probe-bugdet' "
                                "(did you mean --probe-budget?): ./fab --help deploy"),
    ("deploy --probe-bugdet=3", "deploy has no option '--probe-bugdet' "
                                "(did you mean --probe-budget?): ./fab --help deploy"),
    ("deploy --xyzzy", "deploy has no option '--xyzzy': ./fab --help deploy"),
    ("logs --folow", "logs has no option '--folow' (did you mean --follow?): ./fab --help logs"),
    ("logs app --folow",
     "logs has no option '--folow' (did you mean --follow?): ./fab --help logs"),
    ("--lsit", "./fab has no option '--lsit' (did you mean --list?): ./fab --help"),
    ("logs", "logs needs 'service': ./fab --help logs"),
    ("logs deploy logs", "logs needs 'service': ./fab --help logs"),
    ("deploy --probe-budget", "--probe-budget needs a value: ./fab --help deploy"),
    ("-H root@192.0.2.1 deploy", "./fab has no option '-H': ./fab --help"),
    ("--dry deploy", "./fab has no option '--dry': ./fab --help"),
    ("--list --list-format=table",
     "--list-format='table': it should be flat, nested or json"),
    ("test", "test is a group of tasks: ./fab --list test"),
    ("deploy --command=ls", "deploy takes no command after --: ./fab --list"),
    ("--list-depth", "--list-depth needs a value: ./fab --help"),
    ("--list-depth=deep deploy", "'deep' isn't a number: ./fab --help")]


def run(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Return the exit code and the output of a command line."""
    code = 0
    try:
        Program(TASKS).run(["fabfile.py", *line.split()])
    except SystemExit as end:
        code = int(end.code or 0)
    return (code, *capsys.readouterr())


@pytest.mark.unit
@pytest.mark.parametrize(("line", "said"), MISTYPED)
def test_a_mistyped_line_says_what_was_meant(
        line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line, capsys) == (1, "", f"{said}\n")


@pytest.mark.unit
@pytest.mark.parametrize(("line", "said"), [
    ("deploy", "budget= json=False\n"),
    ("deploy --probe-budget 3 --json", "budget=3 json=True\n"),
    ("deploy logs app --follow", "budget= json=False\nservice=app follow=True\n")])
def test_a_right_line_runs_its_tasks(
        line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line, capsys) == (0, said, "")


@pytest.mark.unit
@pytest.mark.parametrize(("line", "usage"), [
    ("--help deploy", "Usage: ./fab [--core-opts] deploy "),
    ("deploy --help", "Usage: ./fab [--core-opts] deploy "),
    ("--help", "Usage: ./fab [--core-opts] "),
    ("", "Usage: ./fab [--core-opts] ")])
def test_the_usage_names_the_script(
        line: str, usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(line, capsys)
    assert (code, err) == (0, "") and out.startswith(usage)


@pytest.mark.unit
@pytest.mark.parametrize(("line", "title"), [
    ("--list", "Available tasks:"),
    ("", "Available tasks:"),
    ("--list test", "Available 'test' tasks:"),
    ("--list --list-depth 1", "Available tasks (depth=1):"),
    ("--list --list-format nested", "Available tasks ('*' denotes collection defaults):"),
    ("--list --list-depth 1 --list-format nested",
     "Available tasks (depth=1; '*' denotes collection defaults):")])
def test_a_list_is_one_of_tasks(line: str, title: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(line, capsys)
    assert (code, err) == (0, "") and title in out.splitlines()
    assert "Subcommands" not in out


@pytest.mark.unit
def test_another_broken_pipe_than_that_of_the_output_is_a_bug(
        capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BrokenPipeError):
        run("break-off", capsys)


@pytest.mark.unit
@pytest.mark.parametrize("name", sorted(fabfile.namespace.task_names))
def test_each_task_of_the_project_has_a_help(
        name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fabfile.program.run(["fabfile.py", "--help", name])
    assert not ended.value.code
    assert capsys.readouterr().out.startswith(f"Usage: ./fab [--core-opts] {name} ")


@pytest.mark.service
def test_the_project_is_started_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / "fabfile.py", "deplyo"], cwd=tmp_path,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (
        1, "", "there is no task 'deplyo' (did you mean deploy?): ./fab --list\n")


@pytest.mark.service
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("line", ["--list", "--help", "--help deploy", "--version"])
def test_output_that_nobody_reads_is_no_error(line: str, unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, ROOT / "fabfile.py", *line.split()], stdout=writing,
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


@pytest.mark.service
@pytest.mark.parametrize("line", ["--list", "--version", "deplyo"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cant_be_written_is_one_line(line: str, unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, ROOT / "fabfile.py", line], stdout=full, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.service
def test_nobodys_own_configuration_of_fabric_is_read(tmp_path: Path) -> None:
    (tmp_path / ".fabric.yml").write_text("a: [")
    done = subprocess.run(
        [sys.executable, ROOT / "fabfile.py", "cloud-init", "--key=/nope"], capture_output=True,
        text=True, env={**os.environ, "HOME": str(tmp_path), "FABRIC_PORT": "x"})
    assert done.stderr == "/nope can't be read: No such file or directory\n"
