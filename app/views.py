"""Answer the page and the version."""

from datetime import date
from functools import lru_cache

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, render_template, request
from jinja2 import Template, TemplateError
from markupsafe import Markup

from app.addresses import visitor_digest
from app.chart import chart
from app.config import ConfigError, current_config
from app.database import product
from app.metrics import current_metrics
from app.models import db
from app.visits import DAYS_SHOWN, Tally, count_visit, read_tally

blueprint = Blueprint("views", __name__)

# What a render reaches, also through "extends", which is resolved only then.
TEMPLATES = ("base.html", "page.html", "chart.html", "error.html")


def compile_templates(app: Flask) -> None:
    """Compile every template now: a broken one must stop the start, not a visitor.

    Raises ConfigError that names the template, and the line where there is one.
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
    """Write a day as people do: 3 May."""
    return f"{date.day} {date:%b}"


@blueprint.get("/")
def page() -> str:
    """Count the visit that a GET is, and show the figures."""
    config = current_config()
    figures = answered_visit(visitor(config.visitor_key))
    return render_template(
        "page.html",
        figures=figures,
        chart=drawn(
            current_app.jinja_env.get_template("chart.html"),
            tuple(sorted(figures.new_by_day.items())),
            figures.today,
        ),
        database=product(db.engine),
        config=config,
    )


@lru_cache(maxsize=1)
def drawn(template: Template, new_by_day: tuple[tuple[date, int], ...], today: date) -> Markup:
    """Draw the chart, once for all visits between two new visitors.

    It is most of a page's work. The template is a key, as an edited one is another.
    """
    return Markup(template.render(chart=chart(dict(new_by_day), today, DAYS_SHOWN)))


def visitor(key: bytes) -> bytes:
    """Return who asks, or answer 400 when the proxy's word for it is no address."""
    try:
        return visitor_digest(request.remote_addr or "", key)
    except ValueError:
        abort(400, "The address that this request came from cannot be read.")


def answered_visit(visitor: bytes) -> Tally:
    """Count a GET; answer a HEAD with what a GET would find, without counting."""
    if request.method == "HEAD":
        return read_tally(db.engine, visitor)
    figures = count_visit(db.engine, visitor)
    current_metrics().visits.inc()
    return figures


@blueprint.get("/version")
def version() -> Response:
    """Say which build answers."""
    config = current_config()
    return jsonify(version=config.version, commit=config.commit)
