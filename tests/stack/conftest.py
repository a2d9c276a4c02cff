"""Fixtures for a machine, its commands and git repositories."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack import progress
from stack.console.observer import ConsoleObserver
from stack.engine.engine import Engine
from stack.machines.local import LocalMachine
from stack.release.target import Target
from tests.support.engine_api import FakeEngine, reached
from tests.support.executables import executable, require_pinned
from tests.support.log_api import Logging, two_machines
from tests.support.repository import Repository

AddCommand = Callable[..., Path]
ELSEWHERE = {
    "DOCKER_HOST": "tcp://192.0.2.1:2376", "DOCKER_CONTEXT": "other", "DOCKER_TLS_VERIFY": "1",
    "DOCKER_CERT_PATH": "/nonexistent", "DOCKER_CONFIG": "/nonexistent",
    "DOCKER_API_VERSION": "1.24", "DOCKER_DEFAULT_PLATFORM": "linux/s390x",
    "DOCKER_BUILDKIT": "0", "BUILDX_BUILDER": "other"}

# Tests see what the rooms report as a person would, also without the commands.
progress.observe(ConsoleObserver())


@pytest.fixture
def machine() -> LocalMachine:
    return LocalMachine()


@pytest.fixture(autouse=True)
def another_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test as somebody whose own docker command works with another engine."""
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value)
    yield
    require_pinned(tmp_path)


@pytest.fixture
def add_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddCommand:
    """Add commands that hide the machine's own: `add_command("df", "echo 5")`."""
    folder = tmp_path / "commands"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda name, *lines: executable(folder / name, *lines)


@pytest.fixture
def engine(fake: FakeEngine) -> Iterator[Engine]:
    """The engine that the test's own `fake` stands in for."""
    with reached(fake) as engine:
        yield engine


@pytest.fixture
def no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Reduce PATH to one empty folder."""
    folder = tmp_path / "no-commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with one commit, independent of this user's git configuration."""
    for name, value in {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
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
    """Two machines, each with an engine whose containers have logs."""
    add_command("docker")
    with two_machines(api, tmp_path, monkeypatch) as target:
        yield target
