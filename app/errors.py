"""Answer errors with a page that says in human words what happened."""

from flask import Flask, Response, current_app, render_template
from sqlalchemy.exc import DBAPIError, TimeoutError
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from app import logs
from app.config import current_config
from app.metrics import current_metrics

RETRY_AFTER_SECONDS = 5
# What happened, and what to make of it.
SENTENCES = {
    400: "This request cannot be understood.",
    404: "There is nothing at this address.",
    405: "This address only answers to being read.",
    500: "Something went wrong on our side.",
    503: "The counter cannot reach its memory right now.",
}
ADVICE = {
    500: "It has been noted. Trying again may help.",
    503: "No visit is counted meanwhile. Please come back in a moment.",
}


def register(app: Flask) -> None:
    """Answer HTTP errors, bugs and an absent database each in its way."""
    app.register_error_handler(HTTPException, show)
    app.register_error_handler(DBAPIError, without_database)
    app.register_error_handler(TimeoutError, without_database)


def show(error: HTTPException) -> Response:
    """Render the error's page; its status and headers, such as Allow, stay."""
    response = current_app.make_response(error.get_response())
    if response.status_code >= 400:
        response.content_type = "text/html; charset=utf-8"
        response.data = render_template(
            "error.html",
            status=response.status_code,
            name=error.name,
            sentence=SENTENCES.get(response.status_code, error.description),
            advice=ADVICE.get(response.status_code, ""),
            config=current_config(),
        )
    return response


def without_database(error: DBAPIError | TimeoutError) -> Response:
    """Answer 503, and log what the driver or the pool said."""
    current_metrics().database_errors.inc()
    logs.log.error("database error", extra=logs.fields(cause=logs.cause(error)))
    return show(ServiceUnavailable(retry_after=RETRY_AFTER_SECONDS))
