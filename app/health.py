"""Tell whether this process lives, and whether it can serve."""

from flask import Blueprint, current_app
from sqlalchemy.exc import DBAPIError, TimeoutError

from app import logs, schema
from app.database import transact
from app.models import db

blueprint = Blueprint("health", __name__)
TEXT = {"Content-Type": "text/plain; charset=utf-8"}


@blueprint.get("/healthz")
def alive() -> tuple[str, int, dict[str, str]]:
    """Answer without the database: restarting this process would not mend that."""
    return "alive\n", 200, TEXT


@blueprint.get("/readyz")
def ready() -> tuple[str, int, dict[str, str]]:
    """Answer 200 when the database answers and its schema suits this code, else 503."""
    try:
        revision = transact(db.engine, schema.current_revision)
    except (DBAPIError, TimeoutError) as error:
        logs.log.error("not ready", extra=logs.fields(cause=logs.cause(error)))
        return "the database does not answer\n", 503, TEXT
    fault = schema.current_schema(current_app).fault(revision)
    return (f"{fault}\n", 503, TEXT) if fault else ("ready\n", 200, TEXT)
