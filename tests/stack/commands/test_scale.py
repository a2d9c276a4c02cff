"""Scaling is refused before it changes anything."""

import time

import pytest

from stack.commands import scale
from stack.errors import Refused
from stack.release.target import Target
from stack.state import releases
from tests.stack.conftest import AddCommand
from tests.stack.release.test_migrate import load
from tests.support.engine_api import FakeEngine
from tests.support.failing import error_of
from tests.support.targets import aiming_at

pytestmark = pytest.mark.unit


def test_more_tasks_than_the_database_serves_are_refused(
        add_command: AddCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeEngine()
    add_command("docker")
    with aiming_at(fake) as target:
        monkeypatch.setattr(Target, "reach", lambda why: target)
        releases.save(target.engine, releases.make(
            target.engine, version="1.4.0+57", commit="0123456", who="ada", began=time.time(),
            stack=load(), probe=None, schema=[]))
        before = list(fake.kinds["configs"])
        refused = error_of(lambda: scale.scale("app=40"), Refused)

    assert refused.startswith("app: 40 tasks are too many for the database: ")
    assert list(fake.kinds["configs"]) == before
