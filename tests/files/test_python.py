"""The Python sources pass the linters and the type checker, and no function is too long."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.files.changed import only_changed
from tests.files.tree import ROOT, files, interpreter, must_pass, python_files

pytestmark = pytest.mark.style

LONGEST_FUNCTION = 40  # lines


def test_flake8_finds_nothing() -> None:
    with only_changed("flake8", python_files(), "setup.cfg") as changed:
        if changed:
            must_pass(sys.executable, "-m", "flake8", about=changed)


def test_mypy_finds_nothing_in_the_packages() -> None:
    must_pass(sys.executable, "-m", "mypy", "--no-error-summary")


def test_mypy_finds_nothing_in_the_scripts() -> None:
    scripts = [name for name in python_files() if not name.endswith(".py")]

    must_pass(sys.executable, "-m", "mypy", "--scripts-are-modules", "--no-error-summary",
              about=scripts)


def test_imports_are_in_order() -> None:
    must_pass(sys.executable, "-m", "isort", "--check-only", about=python_files())


def test_rooms_import_downwards_only() -> None:
    # This command is beside the interpreter; it can't run as a module.
    must_pass(str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo")


def test_no_function_is_longer_than_a_screen() -> None:
    assert [place for place, lines in functions() if lines > LONGEST_FUNCTION] == []


def test_no_two_types_have_the_same_name() -> None:
    names = Counter(node.name for name in python_files() if name.startswith("stack/")
                    for node in ast.parse((ROOT / name).read_text()).body
                    if isinstance(node, ast.ClassDef))

    assert [name for name, count in names.items() if count > 1] == []


def test_scripts_are_executable() -> None:
    scripts = [name for name in files() if interpreter(name)]

    assert [name for name in scripts if not (ROOT / name).stat().st_mode & 0o100] == []


def functions() -> Iterator[tuple[str, int]]:
    """Yield each function's place and number of lines."""
    for name in python_files():
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}:{node.lineno} {node.name}", \
                    (node.end_lineno or node.lineno) - node.lineno + 1
