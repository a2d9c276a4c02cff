"""The base image is pulled, or built from Debian's packages."""

import os
from pathlib import Path

import pytest

from stack.engine.engine import Engine
from stack.images import base
from stack.machines.local import LocalMachine
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine

pytestmark = pytest.mark.unit


@pytest.fixture
def fake() -> FakeEngine:
    """An engine that reaches no registry."""
    return FakeEngine(failing=True)


def test_a_built_base_has_the_same_modes_under_any_umask(
        engine: Engine, machine: LocalMachine, add_command: AddCommand, tmp_path: Path) -> None:
    add_command("mmdebstrap", f'[ "$1" = --version ] || umask > {tmp_path}/umask')
    add_command("docker", "exit 0")
    before = os.umask(0o077)
    try:
        base.make_base(engine, machine)
    finally:
        os.umask(before)
    assert (tmp_path / "umask").read_text() == "0022\n"
