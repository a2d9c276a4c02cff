"""Every shell script passes shellcheck, whatever its name."""

import pytest

from tests.files.tree import installed, must_pass, shell_files

pytestmark = pytest.mark.style


def test_shellcheck_finds_nothing() -> None:
    must_pass(installed("shellcheck"), "--format=gcc", about=shell_files())
