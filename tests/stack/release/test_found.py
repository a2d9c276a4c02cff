"""What a deploy decides by is read once."""

from dataclasses import replace

import pytest

from stack.inventory.settings import DEFAULT_REPLICAS
from stack.release.found import Found, Running
from stack.state import releases
from stack.state.releases import Record
from stack.swarm.stackfile import Stack
from tests.support.engine_api import FakeEngine, reached

pytestmark = pytest.mark.unit

EMPTY = Found(None, (), {}, None, 0, 1450)


def deployed(replicas: int, at: float = 1.0) -> Record:
    stack = {"services": {"app": {"deploy": {"replicas": replicas}}}}
    return Record("1.4.0+57", "0123456", "ada@example.org", at, 12.5, stack, {"app": "hash"})


def test_a_deploy_keeps_as_many_tasks_as_the_last_release_had() -> None:
    with reached(FakeEngine()) as engine:
        for record in (deployed(3, at=1.0), deployed(5, at=3.0), deployed(4, at=2.0)):
            releases.save(engine, record)
        found = replace(EMPTY, history=tuple(releases.history(engine)))
    assert found.replicas == 5


def test_a_first_deploy_has_two_tasks() -> None:
    assert EMPTY.latest is None
    assert EMPTY.replicas == DEFAULT_REPLICAS == 2


def test_a_release_runs_only_if_stack_and_services_are_its_own() -> None:
    record = deployed(2)
    assert Running(record, record.specs).is_exactly(record.stack)
    assert not Running(record, record.specs).is_exactly(deployed(3).stack)
    assert not Running(record, {"app": "changed by hand"}).is_exactly(record.stack)
    assert not Running(None, {}).is_exactly(Stack({"services": {}}))
