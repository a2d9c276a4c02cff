"""Give each test a machine, commands of its own and git repositories."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack.machine import LocalMachine
from stack.target import Target
from tests.stack.executables import executable
from tests.stack.log_api import Logging, two_machines
from tests.stack.repository import Repository

AddCommand = Callable[..., Path]


@pytest.fixture
def machine() -> LocalMachine:
    return LocalMachine()


@pytest.fixture
def add_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddCommand:
    """Put commands before the machine's own: `add_command("df", "echo 5")`."""
    folder = tmp_path / "commands"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda name, *lines: executable(folder / name, *lines)


@pytest.fixture
def no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave nothing on PATH but one empty folder."""
    folder = tmp_path / "no-commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with one commit, whatever this user's git is set to."""
    for name, value in {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("BUILD_NUMBER", "CI_PIPELINE_IID"):
        monkeypatch.delenv(name, raising=False)
    made = Repository(tmp_path / "checkout")
    made.git("init", "--quiet", "--initial-branch=main")
    made.write("version.txt", "1.4.0\n")
    made.write(".gitignore", ".env\n*.log\n")
    made.commit("Begin")
    return made


@pytest.fixture
def api() -> Logging:
    return Logging()


@pytest.fixture
def two(api: Logging, tmp_path: Path, add_command: AddCommand,
        monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """Two machines with an engine each, whose containers have logs."""
    add_command("docker")
    with two_machines(api, tmp_path, monkeypatch) as target:
        yield target
