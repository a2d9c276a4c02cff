"""Metrics are exact, even across processes, and not visible from outside."""

import re
from pathlib import Path

import pytest
import requests
from flask.testing import FlaskClient

from tests.app.conftest import migrated
from tests.support.services import Database, uwsgi


def value(text: str, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def requests_of(method: str, endpoint: str, status: int) -> str:
    labels = f'endpoint="{endpoint}",method="{method}",status="{status}"'
    return f"tally_requests_total{{{labels}}}"


@pytest.mark.unit
def test_requests_and_visits_are_counted(client: FlaskClient) -> None:
    for method in ("GET", "GET", "HEAD", "PURGE"):
        client.open("/", method=method)
    client.get("/nowhere")
    text = client.get("/metrics").text
    assert value(text, requests_of("GET", "views.page", 200)) == 2
    assert value(text, requests_of("HEAD", "views.page", 200)) == 1
    assert value(text, requests_of("other", "none", 405)) == 1
    assert value(text, requests_of("GET", "none", 404)) == 1
    assert value(text, 'tally_request_seconds_count{endpoint="views.page"}') == 3
    assert value(text, "tally_visits_total") == 2
    assert value(text, "tally_database_errors_total") == 0


@pytest.mark.unit
def test_applications_do_not_share_their_metrics(client: FlaskClient) -> None:
    assert value(client.get("/metrics").text, "tally_visits_total") == 0


@pytest.mark.unit
@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/metrics/"])
@pytest.mark.parametrize("mark", ["X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via"])
def test_behind_a_proxy_there_are_no_metrics(client: FlaskClient, path: str, mark: str) -> None:
    headers = {mark: "192.0.2.1"}
    response = client.get(headers=headers, environ_overrides={"PATH_INFO": path})
    assert (response.status_code, response.data) == (404, client.get("/nowhere").data)


@pytest.mark.service
def test_processes_share_their_metrics(postgres_database: Database, tmp_path: Path) -> None:
    database = migrated(postgres_database)
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    with uwsgi(database.environ(database.user) | shared) as address:
        for _ in range(40):
            assert requests.get(address, timeout=10).status_code == 200
        text = requests.get(f"{address}/metrics", timeout=10).text
    assert value(text, requests_of("GET", "views.page", 200)) == 40
    assert value(text, "tally_visits_total") == 40
    assert value(text, 'tally_request_seconds_count{endpoint="views.page"}') == 40
