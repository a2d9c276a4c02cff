"""No more tasks are started than the database has connections for."""

from pathlib import Path
from typing import Any

import pytest

from stack.errors import Refused
from stack.inventory import Host, Inventory
from stack.inventory.settings import ROOT
from stack.release import connections
from stack.swarm.stackfile import Stack
from tests.stack.release.test_migrate import load
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

OWN = Inventory("production", (Host("203.0.113.1", "manager"),))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A checkout whose tasks have two connections each, of eleven."""
    for name, text in ((connections.SERVER, "max_connections = 14  # three are the superuser's"),
                       (connections.TASK, "[uwsgi]\n# processes = 9\nprocesses = 2\n")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def with_app(replicas: int, **changes: Any) -> Stack:
    stack = load().with_replicas(replicas)
    return Stack({**stack.content, "services": {
        **stack.services, "app": {**stack.services["app"], **changes}}})


def test_the_checkouts_own_files_are_understood() -> None:
    assert connections.available(ROOT / connections.SERVER) == 97
    assert connections.in_a_task(ROOT / connections.TASK) == 4
    connections.check(with_app(22), ROOT, None)
    assert error_of(lambda: connections.check(with_app(40), ROOT, OWN), Refused) == (
        "app: 40 tasks are too many for the database: with 2 more during an update "
        "they need 169 connections, and it has 97: run at most 22 tasks, "
        "with ./fab scale app=22, or APP_REPLICAS or the inventory if that is set there; or raise "
        "max_connections in stack/images/postgres/postgresql.conf")


def test_the_highest_number_that_is_named_is_accepted(files: Path) -> None:
    connections.check(with_app(3), files, None)
    assert "run at most 3 tasks" in error_of(
        lambda: connections.check(with_app(4), files, None), Refused)


@pytest.mark.parametrize(("update", "extra"), [
    ({"order": "start-first", "parallelism": 3}, 6), ({"order": "start-first"}, 2),
    ({"order": "stop-first"}, 0), ({}, 0)])
def test_an_update_adds_what_starts_and_what_drains(update: dict[str, Any], extra: int) -> None:
    assert connections.during_update(
        with_app(2, deploy={"replicas": 2, "update_config": update})) == extra


@pytest.mark.parametrize(("text", "there"), [
    ("", 97), ("max_connections = 50\nmax_connections 200", 197),
    ("superuser_reserved_connections = 5\nreserved_connections = '10'", 85)])
def test_the_servers_settings_are_read_as_it_does(files: Path, text: str, there: int) -> None:
    (files / connections.SERVER).write_text(text)
    assert connections.available(files / connections.SERVER) == there


def test_another_database_has_connections_that_nobody_knows(files: Path) -> None:
    named = Inventory("production", OWN.nodes, images={"postgres": "registry.example.org/pg:17"})
    connections.check(with_app(100), files, named)
    elsewhere = with_app(100, environment={"DATABASE_URL": "postgresql://app@db.example.org/tally"})
    connections.check(elsewhere, files, None)
