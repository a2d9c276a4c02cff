"""Share one lab between all tests that need machines, and two processes between all tests."""

from collections.abc import Iterator

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.lab import Lab
from tests.turns import turn


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Hold one lab for the whole run."""
    with Lab() as lab:
        yield lab


class Halves(LoadScopeScheduling):
    """Run the tests on several machines in one process, and all others in another.

    Each half takes about as long, and shares its machines from one test to the next.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "several machines" if "/test_9_swarm/" in nodeid else "one machine or none"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Halves:
    return Halves(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Before its own time limit begins, wait for a test that wants to be alone."""
    with turn(item.get_closest_marker("alone") is not None):
        return (yield)
