"""Share one lab between all tests of a process that need machines."""

from collections.abc import Iterator

import pytest

from tests import halves
from tests.lab import Lab


def pytest_configure(config: pytest.Config) -> None:
    halves.divide(config)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Hold one lab for all tests of this process."""
    with Lab() as lab:
        yield lab
