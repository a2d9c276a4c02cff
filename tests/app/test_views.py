"""The page, its sentence, and who is taken for a visitor."""

from html.parser import HTMLParser

import pytest
from flask.testing import FlaskClient

from app import create_app

pytestmark = pytest.mark.unit


def visit(client: FlaskClient, forwarded: str) -> str:
    return client.get("/", headers={"X-Forwarded-For": forwarded}).text


def test_the_page_says_the_figures_the_build_and_the_operator(environ: dict[str, str]) -> None:
    environ |= {"USER_NAME": "Ada & Co", "USER_URL": "https://example.org/?a=1&b=2"}
    page = create_app(environ).test_client().get("/").text
    assert "You have visited this page 1 times. Total visitors: 1<" in page
    assert "Version 1.4.0+57 on SQLite 3" in page
    link = '<a href="https://example.org/?a=1&amp;b=2" rel="noopener">Ada &amp; Co</a>'
    assert f"Deployed by {link}" in page


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
    assert f"this page {visits} times. Total visitors: {3 - visits}<" in visit(client, second)


def test_what_a_client_claims_before_our_proxys_word_changes_nothing(client: FlaskClient) -> None:
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


@pytest.mark.parametrize("path", ["/", "/version", "/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused_and_counted_nowhere(
    client: FlaskClient, method: str, path: str
) -> None:
    response = client.open(path, method=method)
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}
    assert "Total visitors: 1<" in visit(client, "192.0.2.1")


def test_the_version_is_the_build_and_its_commit(environ: dict[str, str]) -> None:
    response = create_app(environ | {"TALLY_COMMIT": "abc123"}).test_client().get("/version")
    assert response.json == {"version": "1.4.0+57", "commit": "abc123"}


class Page(HTMLParser):
    """Collect what a page loads and what a strict policy would block."""

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


def test_the_chart_is_told_in_words(client: FlaskClient) -> None:
    visit(client, "192.0.2.1")
    page = visit(client, "192.0.2.2")
    assert page.count("<rect ") == 30
    assert 'role="img" aria-labelledby="chart-title chart-description"' in page
    assert "2 in all. Most were 2 on " in page
    assert "today so far 2.</desc>" in page


def test_the_chart_follows_each_new_visitor(client: FlaskClient) -> None:
    for number in range(1, 4):
        assert f"today so far {number}.</desc>" in visit(client, f"192.0.2.{number}")
    assert "today so far 3.</desc>" in visit(client, "192.0.2.1")
