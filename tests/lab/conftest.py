"""Fixtures for the lab's machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.lab import Lab, Machine

Boot = Callable[..., list[Machine]]


@pytest.fixture
def boot(lab: Lab) -> Iterator[Boot]:
    """Boot fresh machines with `boot(count, user_data, names)`; they end with the test."""
    before = set(lab.machines)
    yield partial(lab.boot)
    for machine in set(lab.machines) - before:
        lab.discard(machine)


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Machine]:
    """Boot one machine for a module's tests; each test leaves it unchanged."""
    machine, = lab.boot()
    yield machine
    lab.discard(machine)
