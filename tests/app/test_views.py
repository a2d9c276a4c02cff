"""The page, its sentence, and who counts as a visitor."""

import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import FileSystemLoader

from app import create_app

pytestmark = pytest.mark.unit


def visit(client: FlaskClient, forwarded: str) -> str:
    return client.get("/", headers={"X-Forwarded-For": forwarded}).text


def test_the_page_shows_the_numbers_the_build_and_the_operator(environ: dict[str, str]) -> None:
    environ |= {"USER_NAME": "Ada & Co", "USER_URL": "https://example.org/?a=1&b=2"}
    page = create_app(environ).test_client().get("/").text
    assert "You have visited this page 1 time. Total visitors: 1<" in page
    assert "Version 1.4.0+57 on SQLite 3" in page
    link = '<a href="https://example.org/?a=1&amp;b=2" rel="noopener">Ada &amp; Co</a>'
    assert f"Deployed by {link}" in page


def test_an_operators_name_may_have_any_character(environ: dict[str, str]) -> None:
    name = "100 %(times)s \ue000{}"
    page = create_app(environ | {"USER_NAME": name}).test_client().get("/").text
    assert f"<p>Deployed by {name}</p>" in page


def test_an_operator_without_a_url_is_no_link(client: FlaskClient) -> None:
    assert "<p>Deployed by an unnamed operator</p>" in visit(client, "192.0.2.1")


@pytest.mark.parametrize(
    ("first", "second", "visits"),
    [
        ("192.0.2.1", "192.0.2.1", 2),
        ("192.0.2.1", "192.0.2.2", 1),
        ("192.0.2.1", "::ffff:192.0.2.1", 2),
        ("2001:db8::1", "2001:db8::2", 2),
        ("2001:db8::1", "2001:db8:0:1::1", 1),
    ],
)
def test_a_visitor_is_an_address_or_a_network(
    client: FlaskClient, first: str, second: str, visits: int
) -> None:
    visit(client, first)
    times = "1 time" if visits == 1 else f"{visits} times"
    assert f"this page {times}. Total visitors: {3 - visits}<" in visit(client, second)


def test_addresses_that_a_client_claims_are_ignored(client: FlaskClient) -> None:
    visit(client, "192.0.2.1")
    assert "this page 2 times" in visit(client, "203.0.113.9, 192.0.2.1")
    assert "this page 3 times" in visit(client, "unknown, ,203.0.113.9,192.0.2.1")
    other = {"X-Forwarded-For": "192.0.2.1", "X-Real-Ip": "203.0.113.9", "Forwarded": "for=::1"}
    assert "this page 4 times. Total visitors: 1<" in client.get("/", headers=other).text


@pytest.mark.parametrize("forwarded", ["unknown", "192.0.2.1, nobody", "192.0.2.1:80"])
def test_a_visitor_without_an_address_is_refused_and_not_counted(
    client: FlaskClient, forwarded: str
) -> None:
    response = client.get("/", headers={"X-Forwarded-For": forwarded})
    assert response.status_code == 400
    assert "Total visitors: 1<" in visit(client, "192.0.2.1")


@pytest.mark.parametrize("header", [
    ("Sec-Purpose", "prefetch"), ("Sec-Purpose", "prefetch;prerender"),
    ("Sec-Purpose", "prefetch;anonymous-client-ip"), ("Purpose", "prefetch"),
    ("X-Moz", "Prefetch"), ("X-Purpose", "preview"),
])
def test_a_request_in_advance_is_neither_counted_nor_shown_as_a_visit(
    client: FlaskClient, header: tuple[str, str]
) -> None:
    address = ("X-Forwarded-For", "192.0.2.1")
    visit(client, "192.0.2.1")
    response = client.get("/", headers=[address, header])
    assert (response.status_code, response.headers["Cache-Control"]) == (403, "no-store")
    assert "<h1>This page is not sent in advance, because each visit counts.</h1>" in response.text
    assert "tally_visits_total 1.0" in client.get("/metrics").text
    assert "this page 2 times" in visit(client, "192.0.2.1")


@pytest.mark.parametrize("header", [("Sec-Purpose", "visit"), ("Purpose", ""), ("X-Moz", "a")])
def test_a_page_for_another_purpose_is_counted(
    client: FlaskClient, header: tuple[str, str]
) -> None:
    headers = [("X-Forwarded-For", "192.0.2.1"), header]
    assert "this page 1 time" in client.get("/", headers=headers).text


@pytest.mark.parametrize("path", ["/", "/version", "/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused_and_not_counted(
    client: FlaskClient, method: str, path: str
) -> None:
    response = client.open(path, method=method)
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}
    assert "Total visitors: 1<" in visit(client, "192.0.2.1")


def test_the_version_is_the_build_and_its_commit(environ: dict[str, str]) -> None:
    response = create_app(environ | {"TALLY_COMMIT": "abc123"}).test_client().get("/version")
    assert response.json == {"version": "1.4.0+57", "commit": "abc123"}


@pytest.mark.parametrize(("asked", "sent"), [
    ("8192", 8192), ("1000000", 16384), ("0", 0), ("-1", 0), ("x", 0)])
def test_a_version_is_as_large_as_a_deploy_asks(
        client: FlaskClient, asked: str, sent: int) -> None:
    answer = client.get("/version", query_string={"padding": asked}).get_json()
    assert len(answer.get("padding", "")) == sent
    assert ("padding" in answer) is bool(sent)
    assert "Total visitors: 1<" in visit(client, "192.0.2.1")


class Page(HTMLParser):
    """Collect a page's resources, and what a strict policy would block."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.blocked: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        inline = [name for name, _ in attrs if name == "style" or name.startswith("on")]
        self.blocked += [f"{tag} {name}" for name in inline]
        self.blocked += [tag] * (tag in ("script", "style", "iframe", "form", "base", "object"))
        self.loads += [value or "" for name, value in attrs if name == "src"]
        self.loads += [value or "" for name, value in attrs if name == "href" and tag == "link"]


@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_a_page_loads_only_what_its_policy_allows(client: FlaskClient, path: str) -> None:
    page = Page(client.get(path).text)
    assert page.blocked == []
    assert {load.partition("?")[0] for load in page.loads} == {
        "/static/tally.css", "/static/favicon.svg"
    }
    assert [client.get(load).status_code for load in page.loads] == [200] * len(page.loads)


def test_the_style_loads_nothing_else(client: FlaskClient) -> None:
    style = client.get("/static/tally.css").text
    assert "url(" not in style and "@import" not in style


def test_the_chart_has_a_description_in_words(client: FlaskClient) -> None:
    visit(client, "192.0.2.1")
    page = visit(client, "192.0.2.2")
    assert page.count("<rect ") == 30
    assert 'role="img" aria-labelledby="chart-title chart-description"' in page
    assert "2 in all. The busiest day was " in page
    assert "2 so far today.</desc>" in page


def test_the_chart_follows_each_new_visitor(client: FlaskClient) -> None:
    for number in range(1, 4):
        assert f"{number} so far today.</desc>" in visit(client, f"192.0.2.{number}")
    assert "3 so far today.</desc>" in visit(client, "192.0.2.1")


def test_in_development_an_edited_base_template_shows_at_once(app: Flask, tmp_path: Path) -> None:
    templates = Path(app.root_path, "templates")
    base = tmp_path / "base.html"
    shutil.copy(templates / base.name, base)
    app.jinja_env.loader = FileSystemLoader([tmp_path, templates])
    app.jinja_env.auto_reload = True
    client = app.test_client()
    assert "Edited" not in client.get("/").text

    base.write_text(base.read_text().replace("</main>", "<p>Edited</p></main>"))
    os.utime(base, (0, 0))

    assert "<p>Edited</p>" in client.get("/").text
