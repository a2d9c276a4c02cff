"""`docker build` sends only what the application's image needs."""

import shutil
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

from tests.files.dockerfile import instructions
from tests.files.tree import ROOT, files

pytestmark = pytest.mark.style

# Other files of a developer's checkout, some of them secret.
PRIVATE = (".env", ".git/config", ".venv/bin/python", "instance/visitor.key",
           "instance/tally.sqlite3", "app/__pycache__/views.cpython-313.pyc", "app/views.pyc",
           "migrations/versions/__pycache__/0001.cpython-313.pyc", "id_ed25519")
# Always sent: the builder itself reads them.
BUILDER = {"Dockerfile", ".dockerignore"}


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files that are sent from a checkout with the project's files and private ones."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in (*files(), *PRIVATE):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    shutil.copy(ROOT / ".dockerignore", checkout)
    paths = exclude_paths(str(checkout), patterns(checkout / ".dockerignore"))
    return {path for path in paths if (checkout / path).is_file()}


def patterns(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def copied() -> list[str]:
    """Return the paths that the Dockerfile copies from the context."""
    return [source.rstrip("/") for each in instructions(ROOT / "Dockerfile")
            if each.name in {"COPY", "ADD"} and "--from=" not in each.value
            for source in each.words[:-1]]


def test_every_copied_file_is_sent(sent: set[str]) -> None:
    needed = {name for name in files() for source in copied()
              if name == source or name.startswith(f"{source}/")}

    assert needed
    assert needed - sent == set()


def test_nothing_else_is_sent(sent: set[str]) -> None:
    unneeded = {name for name in sent - BUILDER
                if not any(name == source or name.startswith(f"{source}/") for source in copied())}

    assert unneeded == set()


def test_no_private_or_compiled_file_is_sent(sent: set[str]) -> None:
    assert sent & set(PRIVATE) == set()
