"""The page and the version."""

import secrets
from datetime import date, timedelta
from functools import lru_cache

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request
from jinja2 import Template, TemplateError

from app.addresses import visitor_digest
from app.chart import chart, drawn, label
from app.config import ConfigError
from app.database import product
from app.figures import DAYS_SHOWN, Tally
from app.metrics import current_metrics
from app.models import db
from app.visits import count_visit, read_figures, read_tally

blueprint = Blueprint("views", __name__)

# Bytes, a few packets.
MOST_PADDING = 16384
# The templates that a page needs. Jinja doesn't list one that is missing.
TEMPLATES = ("base.html", "page.html", "chart.html", "error.html")

# What a page's template gets for what differs between visits; no other text contains it.
PLACES = {name: f"{name}-{secrets.token_hex(16)}" for name in ("times", "visitors", "chart")}

# Where browsers say that a request is in advance: the header Sec-Purpose, and older ones.
PURPOSES = ("HTTP_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_MOZ", "HTTP_X_PURPOSE")


def compile_templates(app: Flask) -> None:
    """Compile every template at startup, so that a broken one never reaches a visitor.

    Raises ConfigError with the template's name, and the line of the error if there is one.
    """
    for name in sorted({*TEMPLATES, *app.jinja_env.list_templates()}):
        try:
            app.jinja_env.get_template(name)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            place = f"{name}, line {line}" if line else name
            reason = f"{type(error).__name__}: {error.message}"
            raise ConfigError(f"template {place}: {reason}") from error


@blueprint.app_template_filter()
def day(date: date) -> str:
    """Format a date like 3 May."""
    return label(date)


@blueprint.app_template_global()
def path_to(endpoint: str, **values: str) -> str:
    """Return an endpoint's path.

    Unlike url_for, it uses nothing of the request: a malformed Host must not break the
    page that says so.
    """
    return current_app.url_map.bind("").build(endpoint, values)


@blueprint.get("/")
def page() -> str:
    """Count the visit and show the figures; answer 403 to a request in advance of a visit.

    A browser shows a page that it rendered in advance without asking again, even one that
    must not be stored. So only an error makes it request the page when someone visits it.
    """
    if is_speculative():
        abort(403, "This page is not sent in advance, because each visit counts.")
    figures = count_or_read(visitor(current_app.config["VISITOR_KEY"]))
    if current_app.jinja_env.auto_reload:
        # In development, somebody may have edited a template on which this one builds.
        skeleton.cache_clear()
    template = current_app.jinja_env.get_template
    return skeleton(template("page.html"), product(db.engine)) % {
        "times": "1 time" if figures.visits == 1 else f"{figures.visits} times",
        "visitors": figures.visitors,
        "chart": rendered_chart(
            template("chart.html"), tuple(figures.new_by_day.items()), figures.today
        ),
    }


@lru_cache(maxsize=1)
def skeleton(template: Template, database: str) -> str:
    """Render what all pages have in common, with places for what they haven't.

    Rendering the template for each visit would take as long as counting it.
    """
    text = template.render(**PLACES, database=database).replace("%", "%%")
    for name, mark in PLACES.items():
        text = text.replace(mark, f"%({name})s")
    return text


@lru_cache(maxsize=1)
def rendered_chart(
    template: Template, new_by_day: tuple[tuple[date, int], ...], today: date
) -> str:
    """Render the chart; cache it until its figures or its template change."""
    laid_out = chart(dict(new_by_day), today, DAYS_SHOWN)
    return template.render(chart=laid_out, bars=drawn(laid_out))


def visitor(key: bytes) -> bytes:
    """Return the client's digest; answer 400 if the client's address is invalid."""
    try:
        return visitor_digest(request.remote_addr or "", key)
    except ValueError:
        abort(400, "The address that this request came from cannot be read.")


def is_speculative() -> bool:
    """Return whether a browser requests the page in advance, in case someone visits it."""
    given = [request.environ[name].lower() for name in PURPOSES if name in request.environ]
    return any(purpose.startswith(("prefetch", "preview")) for purpose in given)


def count_or_read(visitor: bytes) -> Tally:
    """Count a GET; for a HEAD, only read the figures."""
    if request.method == "HEAD":
        return read_tally(db.engine, visitor)
    figures = count_visit(db.engine, visitor)
    current_metrics().visits.inc()
    return figures


@blueprint.get("/stats.json")
def stats() -> Response:
    """Return the page's figures without counting a visit; a cache may keep them for a second."""
    figures = read_figures(db.engine)
    first = figures.today - timedelta(days=DAYS_SHOWN - 1)
    shown = [first + timedelta(days=number) for number in range(DAYS_SHOWN)]
    response = jsonify(
        visitors=figures.visitors,
        new_by_day={day.isoformat(): figures.new_by_day.get(day, 0) for day in shown},
    )
    response.headers["Cache-Control"] = "public, max-age=1"
    return response


@blueprint.get("/version")
def version() -> Response:
    """Return the version and commit of this build.

    With `?padding=N`, the answer is N bytes longer: a deploy tests that large answers arrive.
    """
    config = current_app.config
    padding = min(max(request.args.get("padding", 0, int), 0), MOST_PADDING)
    return jsonify(version=config["VERSION"], commit=config["COMMIT"],
                   **({"padding": "." * padding} if padding else {}))
