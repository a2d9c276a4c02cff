"""Every response has the security headers."""

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.headers import SECURITY

pytestmark = pytest.mark.unit
DYNAMIC = ["/", "/version", "/healthz", "/readyz", "/metrics", "/nowhere", "/static/absent.css"]


@pytest.mark.parametrize("path", [*DYNAMIC, "/static/tally.css", "//version"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_every_response_has_the_security_headers(
    client: FlaskClient, method: str, path: str
) -> None:
    headers = client.open(method=method, environ_overrides={"PATH_INFO": path}).headers
    assert {name: headers.get(name) for name in SECURITY} == SECURITY


def test_the_policy_allows_style_and_images_of_this_site_only() -> None:
    directives = dict(
        directive.split(" ", 1) for directive in SECURITY["Content-Security-Policy"].split("; ")
    )
    assert directives == {
        "default-src": "'none'", "style-src": "'self'", "img-src": "'self'",
        "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize("path", DYNAMIC)
def test_dynamic_responses_are_not_cached(client: FlaskClient, path: str) -> None:
    assert client.get(path).headers["Cache-Control"] == "no-store"


def test_a_file_of_this_build_is_cached_for_a_year(client: FlaskClient) -> None:
    response = client.get("/static/tally.css?v=1.4.0%2B57")
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    again = client.get(
        "/static/tally.css?v=1.4.0%2B57", headers={"If-None-Match": response.headers["ETag"]}
    )
    assert again.status_code == 304


@pytest.mark.parametrize("query", ["", "?v=1.4.0%2B58"])
def test_a_file_of_another_build_is_revalidated(client: FlaskClient, query: str) -> None:
    assert client.get(f"/static/tally.css{query}").headers["Cache-Control"] == "no-cache"


def test_in_development_a_changed_file_shows_at_once(
    environ: dict[str, str], tmp_path: object
) -> None:
    client = create_app(
        environ | {"TALLY_ENV": "development"}, instance_path=str(tmp_path)
    ).test_client()
    response = client.get("/static/tally.css?v=1.4.0%2B57")
    assert response.headers["Cache-Control"] == "no-cache"
