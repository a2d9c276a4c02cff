"""Errors are pages in human words, whatever went wrong."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

pytestmark = pytest.mark.unit


def test_an_unknown_address_is_a_404_page(client: FlaskClient) -> None:
    response = client.get("/nowhere")
    assert (response.status_code, response.mimetype) == (404, "text/html")
    assert "<h1>There is nothing at this address.</h1>" in response.text
    assert "<p>404 Not Found</p>" in response.text


def test_another_method_is_a_405_page(client: FlaskClient) -> None:
    response = client.post("/")
    assert (response.status_code, response.mimetype) == (405, "text/html")
    assert "<h1>This address only answers to being read.</h1>" in response.text


def test_a_bug_is_a_500_page_that_tells_nothing_of_it(app: Flask) -> None:
    app.view_functions["views.version"] = lambda: str(1 // 0)
    response = app.test_client().get("/version")
    assert (response.status_code, response.mimetype) == (500, "text/html")
    assert "<h1>Something went wrong on our side.</h1>" in response.text
    assert "division" not in response.text


def test_a_redirect_stays_a_redirect(client: FlaskClient) -> None:
    response = client.get("/static//tally.css")
    assert (response.status_code, response.location) == (308, "http://localhost/static/tally.css")
