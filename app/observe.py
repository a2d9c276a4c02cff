"""Log and measure every request."""

import logging
import time

from flask import Flask, Response, g, request

from app import logs
from app.metrics import current_metrics


def register(app: Flask) -> None:
    """Time each request and report its response."""
    app.before_request(start_clock)
    app.after_request(report)


def start_clock() -> None:
    """Store the time when the request started."""
    g.started = time.perf_counter()


def report(response: Response) -> Response:
    """Log and measure the request, without the query string or the client's address."""
    seconds = time.perf_counter() - g.started
    current_metrics().observe(request, response.status_code, seconds)
    details = logs.fields(
        method=request.method,
        path=request.path,
        status=response.status_code,
        milliseconds=round(seconds * 1000, 2),
        endpoint=request.endpoint,
    )
    logs.log.log(level(response.status_code), "request", extra=details)
    return response


def level(status: int) -> int:
    """Return the log level; hide Docker's frequent successful health checks."""
    if request.endpoint == "health.alive" and status == 200:
        return logging.DEBUG
    return logging.ERROR if status >= 500 else logging.INFO
