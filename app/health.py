"""Report liveness and readiness."""

from flask import Blueprint
from sqlalchemy.exc import DBAPIError, TimeoutError

from app import logs, schema
from app.database import transact
from app.models import db

blueprint = Blueprint("health", __name__)
TEXT = {"Content-Type": "text/plain; charset=utf-8"}


@blueprint.get("/healthz")
def alive() -> tuple[str, int, dict[str, str]]:
    """Answer without the database, because a restart would not fix a database failure."""
    return "alive\n", 200, TEXT


@blueprint.get("/readyz")
def ready() -> tuple[str, int, dict[str, str]]:
    """Answer 200 if the database answers with a compatible schema, else 503."""
    try:
        fault = transact(db.engine, schema.fault)
    except (DBAPIError, TimeoutError) as error:
        logs.log.error("not ready", extra=logs.fields(cause=logs.cause(error)))
        return "the database does not answer\n", 503, TEXT
    return (f"{fault}\n", 503, TEXT) if fault else ("ready\n", 200, TEXT)
