"""Give tests the stack as a deploy would render it."""

import pytest

from stack import definition
from stack.definition import Stack
from tests.files.sample import STACK_FILE, VARIABLES


@pytest.fixture(scope="session")
def stack() -> Stack:
    return definition.load(STACK_FILE, VARIABLES)
