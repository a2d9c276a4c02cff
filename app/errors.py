"""Answer errors with a page that explains them in plain words."""

from contextlib import suppress

from flask import Flask, Response, current_app, render_template
from sqlalchemy.exc import DBAPIError, TimeoutError
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from app import logs, schema
from app.database import is_undefined, transact
from app.metrics import current_metrics
from app.models import db

RETRY_AFTER_SECONDS = 5
SENTENCES = {
    400: "This request cannot be understood.",
    404: "There is nothing at this address.",
    405: "This address can only be read.",
    500: "Something went wrong on our side.",
    503: "The counter cannot reach its database right now.",
}
ADVICE = {
    500: "The error was logged. Trying again may help.",
    503: "Visits cannot be counted at the moment. Please try again soon.",
}


def register(app: Flask) -> None:
    """Register the handlers of HTTP errors, bugs and database failures."""
    app.register_error_handler(HTTPException, show)
    app.register_error_handler(DBAPIError, without_database)
    app.register_error_handler(TimeoutError, without_database)


def show(error: HTTPException) -> Response:
    """Render the error's page; keep its status and headers, such as Allow."""
    response = current_app.make_response(error.get_response())
    if response.status_code >= 400:
        response.content_type = "text/html; charset=utf-8"
        response.data = render_template(
            "error.html",
            status=response.status_code,
            name=error.name,
            sentence=SENTENCES.get(response.status_code, error.description),
            advice=ADVICE.get(response.status_code, ""),
        )
    return response


def without_database(error: DBAPIError | TimeoutError) -> Response:
    """Answer 503 and log the error of the driver or the pool."""
    current_metrics().database_errors.inc()
    details = {"cause": logs.cause(error)}
    if reason := schema_fault(error):
        details["schema"] = reason
    logs.log.error("database error", extra=logs.fields(**details))
    return show(ServiceUnavailable(retry_after=RETRY_AFTER_SECONDS))


def schema_fault(error: DBAPIError | TimeoutError) -> str | None:
    """Return what to do about a missing table or column, or None for any other error."""
    if not isinstance(error, DBAPIError) or not is_undefined(error):
        return None
    with suppress(DBAPIError, TimeoutError):
        return transact(db.engine, schema.fault)
    return None
