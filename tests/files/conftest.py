"""Fixtures for the stack as a deploy renders it."""

import pytest

from stack.swarm import stackfile
from stack.swarm.stackfile import Stack
from tests.files.sample import STACK_FILE, VARIABLES


@pytest.fixture(scope="session")
def stack() -> Stack:
    return stackfile.load(STACK_FILE, VARIABLES)
