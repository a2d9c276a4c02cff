"""Log and measure every request."""

import logging
import time
from collections.abc import Iterable
from typing import Any

from flask import Flask, Response, request

from app import logs
from app.metrics import current_metrics

STARTED = "tally.started"


def register(app: Flask) -> None:
    """Time each request and report its response."""
    app.after_request(report)
    answer: Any = app.wsgi_app

    def start_clock(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[STARTED] = time.perf_counter()
        answered: Iterable[bytes] = answer(environ, start_response)
        return answered

    app.wsgi_app = start_clock  # type: ignore[method-assign]


def report(response: Response) -> Response:
    """Log and measure the request, without the query string or the client's address."""
    method, path, endpoint = request.method, request.path, request.endpoint
    status = response.status_code
    seconds = time.perf_counter() - request.environ[STARTED]
    current_metrics().observe(method, endpoint, status, seconds)
    logs.write(
        level(endpoint, status), "request", method=method, path=path, status=status,
        milliseconds=round(seconds * 1000, 2), endpoint=endpoint,
    )
    return response


def level(endpoint: str | None, status: int) -> int:
    """Return the log level; hide Docker's frequent successful health checks."""
    if endpoint == "health.alive" and status == 200:
        return logging.DEBUG
    return logging.ERROR if status >= 500 else logging.INFO
