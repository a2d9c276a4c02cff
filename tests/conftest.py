"""Share one lab of machines between all tests that need machines."""

from collections.abc import Iterator

import pytest

from tests.lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Hold one lab for the whole run."""
    with Lab() as lab:
        yield lab
