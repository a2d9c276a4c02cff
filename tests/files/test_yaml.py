"""Every YAML file is valid and has the same style."""

import sys

import pytest

from tests.files.tree import must_pass, yaml_files

pytestmark = pytest.mark.style


def test_yamllint_finds_nothing() -> None:
    command = (sys.executable, "-m", "yamllint", "--strict", "--format=parsable")

    must_pass(*command, about=yaml_files())
