"""Visits are counted exactly, on every database."""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timezone

import pytest
import requests
from flask import Flask
from sqlalchemy import func, select

from app import create_app
from app.models import NewVisitors, Visitor, VisitorTotal, db
from tests.app.conftest import MARIADB, POSTGRESQL, migrated
from tests.support.services import Database, uwsgi


def page(app: Flask, address: str) -> str:
    return app.test_client().get("/", headers={"X-Forwarded-For": address}).text


def sentence(visits: int, total: int) -> str:
    times = "1 time" if visits == 1 else f"{visits} times"
    return f"You have visited this page {times}. Total visitors: {total}<"


def sums(app: Flask) -> tuple[int, int, int, int]:
    """Return the tables' visits, rows, total of the slots and total of the days."""
    queries = (
        select(func.sum(Visitor.visits)),
        select(func.count()).select_from(Visitor),
        select(func.sum(VisitorTotal.visitors)),
        select(func.sum(NewVisitors.visitors)),
    )
    with app.app_context(), db.engine.connect() as connection:
        first, second, third, fourth = (int(connection.scalar(query) or 0) for query in queries)
    return first, second, third, fourth


def test_the_first_visit_counts_one_visit_and_one_visitor(any_app: Flask) -> None:
    assert sentence(1, 1) in page(any_app, "192.0.2.1")


def test_a_returning_visitor_is_not_a_new_visitor(any_app: Flask) -> None:
    page(any_app, "192.0.2.1")
    page(any_app, "192.0.2.2")
    assert sentence(2, 2) in page(any_app, "192.0.2.1")
    assert sums(any_app) == (3, 2, 2, 2)


def test_a_head_request_answers_like_get_and_counts_nothing(any_app: Flask) -> None:
    page(any_app, "192.0.2.1")
    response = any_app.test_client().head("/", headers={"X-Forwarded-For": "192.0.2.9"})
    assert (response.status_code, response.data) == (200, b"")
    assert sums(any_app) == (1, 1, 1, 1)


def test_new_visitors_belong_to_the_utc_day(any_app: Flask) -> None:
    before = datetime.now(timezone.utc).date()
    page(any_app, "192.0.2.1")
    after = datetime.now(timezone.utc).date()
    with any_app.app_context(), db.engine.connect() as connection:
        days = connection.scalars(select(NewVisitors.day)).all()
    assert len(days) == 1 and before <= days[0] <= after


def test_only_the_digest_is_stored(any_app: Flask) -> None:
    page(any_app, "192.0.2.1")
    with any_app.app_context(), db.engine.connect() as connection:
        rows = connection.execute(select(Visitor.__table__)).all()
    assert [(len(visitor), visits) for visitor, visits, _ in rows] == [(16, 1)]
    assert [isinstance(last_day, date) for _, _, last_day in rows] == [True]


def visit_all(address: str, clients: Iterable[str]) -> list[str]:
    """Visit once as each client, concurrently, and return the pages."""

    def visit(client: str) -> str:
        response = requests.get(address, headers={"X-Forwarded-For": client}, timeout=30)
        assert response.status_code == 200
        return response.text

    with ThreadPoolExecutor(48) as pool:
        return list(pool.map(visit, clients))


@pytest.mark.parametrize("backend", [POSTGRESQL, MARIADB])
@pytest.mark.parametrize("forking", [(), ("--lazy-apps",)], ids=["forked", "lazy"])
def test_concurrent_visits_are_counted_exactly(
    backend: str, forking: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    database: Database = request.getfixturevalue(backend)
    environ = migrated(database).environ(database.user)
    different = [f"2001:db8:{number:x}::1" for number in range(1, 301)]
    mixed = [client for other in different for client in ("198.51.100.1", other)]

    with uwsgi(environ, *forking) as address:
        counts = [counted(page) for page in visit_all(address, mixed)]
        last = visit_all(address, ["198.51.100.1"])

    assert sorted(visits for visits, _ in counts[::2]) == list(range(1, 301))
    assert [visits for visits, _ in counts[1::2]] == [1] * 300
    # Concurrent new visitors may not see each other's rows yet, but no total is too high.
    assert max(total for _, total in counts) <= 301
    assert [counted(page) for page in last] == [(301, 301)]
    assert sums(create_app(environ)) == (601, 301, 301, 301)


def counted(page: str) -> tuple[int, int]:
    """Return a page's two numbers."""
    found = re.search(r"You have visited this page (\d+) times?\. Total visitors: (\d+)<", page)
    assert found, page
    return int(found[1]), int(found[2])
