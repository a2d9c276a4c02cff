"""Recounting, forgetting and keeping: the totals stay right, on every database."""

from datetime import timedelta

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import text

from app import create_app
from app.figures import utc_today
from app.models import db
from tests.app.conftest import migrated
from tests.app.test_visits import page, sentence
from tests.support.services import Database


@pytest.fixture
def owner(any_database: Database) -> Flask:
    """The application on each database, as the user that owns the tables."""
    return create_app(migrated(any_database).environ(any_database.owner))


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=arguments)


def said(app: Flask, *arguments: str) -> str:
    result = run(app, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def change(app: Flask, statement: str, **values: object) -> None:
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text(statement), values)


def rows(app: Flask) -> int:
    with app.app_context(), db.engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM visitors")) or 0)


def test_there_is_no_drift_after_visits(owner: Flask) -> None:
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        page(owner, address)
    assert said(owner, "reconcile") == "2 visitors, 2 in the total, 2 in the days\nno drift\n"


def test_drift_is_reported_and_mended_on_request(owner: Flask) -> None:
    page(owner, "192.0.2.1")
    change(owner, "UPDATE visitor_totals SET visitors = visitors + 3")
    change(owner, "DELETE FROM new_visitors")
    found = run(owner, "reconcile")
    assert found.exit_code == 1
    assert found.output.splitlines() == [
        "1 visitors, 4 in the total, 0 in the days",
        "Error: drift of +3 in the total and -1 in the days: run flask reconcile --mend"]
    assert said(owner, "reconcile", "--mend").endswith("-3 in the total, +1 in the days\n")
    assert said(owner, "reconcile").endswith("no drift\n")
    assert sentence(1, 2) in page(owner, "192.0.2.2")


def test_a_forgotten_visitor_stays_in_the_totals_and_is_new_again(owner: Flask) -> None:
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        page(owner, address)
    assert said(owner, "forget", "192.0.2.1") == "forgotten\n"
    assert said(owner, "forget", "192.0.2.1") == "nothing is stored of this visitor\n"
    assert rows(owner) == 1
    assert said(owner, "reconcile").endswith("no drift\n")
    assert sentence(1, 3) in page(owner, "192.0.2.1")


def test_what_is_no_address_is_refused_in_one_line(owner: Flask) -> None:
    result = run(owner, "forget", "nobody")
    assert (result.exit_code, result.output) == (
        1, "Error: expected an address such as 192.0.2.1 or 2001:db8::1\n")


def test_retention_forgets_those_who_stayed_away(
    owner: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.upkeep.BATCH", 2)
    for number in range(1, 8):
        page(owner, f"192.0.2.{number}")
    change(owner, "UPDATE visitors SET last_day = :day", day=utc_today() - timedelta(days=31))
    page(owner, "192.0.2.1")
    page(owner, "192.0.2.2")
    change(owner, "UPDATE visitors SET last_day = NULL WHERE visits = 2")
    assert said(owner, "retention", "31") == "0 visitors forgotten\n"
    assert said(owner, "retention", "30") == "5 visitors forgotten\n"
    assert said(owner, "retention", "30") == "0 visitors forgotten\n"
    assert rows(owner) == 2
    assert said(owner, "reconcile").startswith("7 visitors, 7 in the total, 7 in the days")
    assert sentence(3, 7) in page(owner, "192.0.2.1")


@pytest.mark.service
def test_the_applications_user_may_not_forget_and_is_told_who_may(postgres_app: Flask) -> None:
    result = run(postgres_app, "forget", "192.0.2.1")
    assert result.exit_code == 1
    line, = result.output.splitlines()
    assert line == "Error: InsufficientPrivilege: permission denied for table visitors: " \
        "run this as the owner of the tables, like flask db upgrade"


def test_the_figures_are_there_as_json_and_count_no_visit(any_app: Flask) -> None:
    page(any_app, "192.0.2.1")
    client = any_app.test_client()
    response = client.get("/stats.json", headers={"X-Forwarded-For": "192.0.2.9"})
    assert response.headers["Cache-Control"] == "public, max-age=1"
    assert response.json is not None
    days = response.json["new_by_day"]
    assert (response.json["visitors"], len(days), sum(days.values())) == (1, 30, 1)
    assert days[utc_today().isoformat()] == 1
    assert sentence(1, 2) in page(any_app, "192.0.2.2")


@pytest.mark.unit
def test_no_metric_and_no_log_leads_back_to_an_address(
    app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    page(app, "192.0.2.77")
    said(app, "forget", "192.0.2.77")
    told = app.test_client().get("/metrics").text + capsys.readouterr().out
    assert "tally_visits_total 1.0" in told and '"endpoint": "views.page"' in told
    assert "192.0.2.77" not in told
